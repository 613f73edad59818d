"""Environment variables by which our commands tell vLLM's processes something."""

METRICS_FOLDER = "DIVPRUNE_METRICS_FOLDER"
"""Names the folder in which workers write how long they chose tokens; without it, that is not timed."""
