"""Data sets on this machine: where they lie, and whether they are what tasks expect."""
