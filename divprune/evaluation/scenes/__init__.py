"""The built-in benches: generated images or videos, their questions, and the cases that are compared on them."""

from divprune.evaluation.scenes.run import SceneOptions, SceneScores, run_scenes
from divprune.evaluation.scenes.suite import notice

__all__ = ["SceneOptions", "SceneScores", "notice", "run_scenes"]
