"""The command line, checkpoints and media."""

from tests.support.commands import checkpoints, divprune, llava, picture

__all__ = ["checkpoints", "divprune", "llava", "picture"]
