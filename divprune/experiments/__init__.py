"""Compare methods, with each other and with the paper, and find how far a model may be pruned."""

from divprune.evaluation.harness_options import HarnessOptions
from divprune.experiments.harness import run_in_harness
from divprune.experiments.plan import SuiteOptions, plan_suite
from divprune.experiments.reproduce import Plan, ReproduceOptions, plan_paper
from divprune.experiments.run import Reproduction, run_paper
from divprune.experiments.suite import SuiteScores, run_suite
from divprune.experiments.tuning.options import TuneOptions
from divprune.experiments.tuning.outcome import Tuned
from divprune.experiments.tuning.run import tune
from divprune.experiments.tuning.servers import ServerAgreement, ServerPair, compare_servers

__all__ = [
    "HarnessOptions",
    "Plan",
    "ReproduceOptions",
    "Reproduction",
    "ServerAgreement",
    "ServerPair",
    "SuiteOptions",
    "SuiteScores",
    "TuneOptions",
    "Tuned",
    "compare_servers",
    "plan_paper",
    "plan_suite",
    "run_in_harness",
    "run_paper",
    "run_suite",
    "tune",
]
