"""The reliability trial: what is killed, damaged or starved continues, and ends with the table of an untroubled run.

`trial` is the study, its commands and what is looked at afterwards; `kills`, `damage`, `troubles`, `full_disk` and
`fuzz` are what is done to it; `figure` sums up. `python -m benchmarks --only chaos` runs all of it.
`storms` does the same to a study on a Ray cluster of this machine (`nodes`); `storm_figure` sums up (`--only storms`).
"""
