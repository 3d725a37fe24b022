"""Plans: variants, cells with their identity, how many seeds it takes. No file is read and nothing is trained."""
