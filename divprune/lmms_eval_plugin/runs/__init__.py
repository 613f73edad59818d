"""Runs of lmms-eval that survive a crash, and their records."""
