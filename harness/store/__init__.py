"""The folder of cells: what was trained, on disk, and the same as tables. MLflow is `harness.tracking`."""
