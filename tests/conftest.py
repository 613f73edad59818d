"""Shared set-up: offline, one thread, and a torchvision that can be imported."""

import contextlib
import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at import

import pytest
import torch

from tests.torchvision_repair import repair_torchvision

_torchvision_library = repair_torchvision()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threads", type=int, default=1, help="threads that torch uses")
    parser.addoption(
        "--cells",
        choices=("all", "few", "rest"),
        default="all",
        help="of the parity suite: every cell, one of each family and each mode, or the others",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(config.getoption("--threads"))
    # A shell has what it runs in the background ignore Ctrl-C, nohup the terminal's end, and children inherit that:
    # tests that send either would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with contextlib.suppress(ModuleNotFoundError):  # the serving and evaluation environments do without
        from hypothesis import HealthCheck, settings

        # A busy machine takes as long as it takes.
        settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("untimed")
