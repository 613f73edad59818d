"""Measure what a server spends in its vision encoder, from inside vLLM's worker.

`--worker-extension-cls benchmarks.encoder_times.EncoderTimes` adds these methods to the worker, and with
`VLLM_SERVER_DEV_MODE=1` the server calls them by name, in the `/collective_rpc` of its development mode.
"""

import json
import time
import urllib.request
from typing import Any

import torch

EXTENSION = "benchmarks.encoder_times.EncoderTimes"


class EncoderTimes:
    """Comes behind vLLM's class of workers."""

    model_runner: Any

    def time_encoder(self) -> None:
        """Measure all calls of the vision encoder from now on."""
        model = self.model_runner.model
        embed = model.embed_multimodal
        self._encoder_seconds = 0.0

        def timed(**kwargs: Any) -> Any:
            _synchronize()
            started = time.perf_counter()
            embeddings = embed(**kwargs)
            _synchronize()
            self._encoder_seconds += time.perf_counter() - started
            return embeddings

        model.embed_multimodal = timed

    def encoder_times(self) -> dict[str, float]:
        """Return the seconds since `time_encoder`: encoder, projector, and whatever prunes right behind them."""
        return {"seconds": self._encoder_seconds}


def call_worker(address: str, method: str) -> Any:
    """Call a method of a server's only worker.

    Args:
        address: Of the server, without `/v1`.
        method: Its name.
    """
    body, headers = json.dumps({"method": method}).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/collective_rpc", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        (result,) = json.load(response)["results"]
    return result


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
