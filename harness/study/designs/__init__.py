"""Designs: which sets of changes to compare, and with what. Pure combinatorics on names."""
