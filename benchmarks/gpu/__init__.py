"""The benchmark for a machine with one GPU; see __main__.py."""
