"""Glue between a `harness.Run` and frameworks that own the training loop: a file a framework, to be installed apart."""
