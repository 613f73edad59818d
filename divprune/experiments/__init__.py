"""Experiments: what is planned, run and compared."""
