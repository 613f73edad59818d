"""A command line to call in process, small checkpoints, and media to ask about."""

from tests.support.commands import checkpoints, clip, divprune, llava, picture, records, terminal, write_clip
from tests.support.harness_stand_in import harness

__all__ = ["checkpoints", "clip", "divprune", "harness", "llava", "picture", "records", "terminal", "write_clip"]
