"""The DivPrune paper's experiments as data: its settings, its printed numbers, its tables and figures as plans."""
