"""The DivPrune paper's experiments as data: its data sets, its printed numbers, its tables and figures as plans."""
