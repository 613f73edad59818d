"""How far a model may be pruned on its own traffic, without labels."""
