"""The built-in bench: generated scenes, their questions, and the cases that are compared on them."""
