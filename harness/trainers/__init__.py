"""Trainers: what turns settings and a seed into metrics. Each family is a package; none imports the core."""
