"""Images: where they come from, decoded once, as arrays, and as batches on a device."""
