"""Studies: a baseline, named changes and designs, from YAML to a frozen value. Nothing is planned or trained here."""
