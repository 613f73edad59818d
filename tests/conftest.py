"""Shared set-up: offline, one thread, and a torchvision that can be imported."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at import

import torch

from tests.torchvision_repair import repair_torchvision

_torchvision_library = repair_torchvision()
torch.set_num_threads(1)
