"""The image trainer: convolutional networks by the protocol of the 2022 report. PyTorch lives here alone."""
