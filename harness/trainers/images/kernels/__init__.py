"""Compiled convolutions for one kind of CPU, walled in: PyTorch's own are used wherever these do not fit."""
