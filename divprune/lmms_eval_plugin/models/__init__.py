"""The pruned model as lmms-eval calls it."""
