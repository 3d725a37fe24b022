"""Locks and atomic writes: what several rooms need of files. Nothing here knows what is in a file."""
