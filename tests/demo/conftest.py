"""A command line to call in process, small checkpoints, and media to ask about."""

from tests.support.commands import checkpoints, clip, divprune, llava, picture

__all__ = ["checkpoints", "clip", "divprune", "llava", "picture"]
