"""Execution: trains the cells of a plan, here or in worker processes, and isolates what fails."""
