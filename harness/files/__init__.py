"""Locks (and, with time, atomic writes): the one copy of each. Nothing here knows what is in a file."""
