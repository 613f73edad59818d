"""Compare methods: plan runs, have them run, and set them beside each other and beside the paper."""

from divprune.evaluation.harness_options import HarnessOptions
from divprune.experiments.harness import run_in_harness
from divprune.experiments.plan import SuiteOptions, plan_suite
from divprune.experiments.reproduce import Plan, ReproduceOptions, plan_paper
from divprune.experiments.run import Reproduction, run_paper
from divprune.experiments.suite import SuiteScores, run_suite

__all__ = [
    "HarnessOptions",
    "Plan",
    "ReproduceOptions",
    "Reproduction",
    "SuiteOptions",
    "SuiteScores",
    "plan_paper",
    "plan_suite",
    "run_in_harness",
    "run_paper",
    "run_suite",
]
