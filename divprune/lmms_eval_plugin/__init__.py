"""Everything that knows lmms-eval: models and tasks for it, and evaluations run by it."""
