"""Thousands of mixed requests to one pruned server: are all answers those that it gives alone, and does memory grow?

`.venv-serving/bin/python -m benchmarks.soak` writes results/soak.json (`make test-serving` makes that environment).
0 to 3 pictures of all sizes, streaming and not, budgets of the server and of the request, requests that must be
refused, and clients that hang up. The model is tiny: answers and memory are of interest here, speed is not. The pool of
KV blocks is small, so that prefixes are thrown out and computed again all the time. Afterwards an unpruned server is
asked the same, so that memory that grows can be told from memory that grows because of pruning. Neither is flat: after
the warm-up both still grow by a fraction of a percent. docs/results.md shows how much, from the record.

The cache of processed pictures holds them all. With one so small that it throws pictures out, a good request was once
answered with status 500; vLLM 0.32 knows of such misses (`MultiModalCacheMissError`, "retryable"), but that it was one
is not shown.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openai import APIStatusError
from PIL import Image
from tqdm import tqdm

from benchmarks.soak_memory import MemoryLog
from divprune.records import Record, provenance
from tests.serving.cases import picture
from tests.serving.clients import NUM_TOKENS as ANSWER_LENGTH
from tests.serving.clients import Client, Part, Said, as_prompt, data_url, encoded
from tests.serving.reference import Reference, divprune_rule
from tests.serving.servers import Server, running_server
from tests.serving.writers import WRITERS

NAME = "soak"
KEEP_RATIO = 0.25
REQUEST_RATIOS = (None, None, 0.2, 0.1, 0.05)
NEAR_TIE = 1e-4
"""Another token is right too where the logits of the two likeliest are this close."""
NUM_PICTURES, NUM_QUESTIONS = 150, 200
SHARES = {"whole": 0.55, "streamed": 0.25, "refused": 0.12, "hung up": 0.08}
FLAGS = ("--num-gpu-blocks-override", "64")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Question:
    """What is asked: words and pictures as the client sends them, and the request's own budget, if any."""

    parts: tuple[Part, ...]
    pictures: tuple[Image.Image, ...]
    ratio: float | None

    @property
    def kwargs(self) -> dict[str, Any] | None:
        return None if self.ratio is None else {"keep_ratio": self.ratio}

    def expected(self, reference: Reference) -> tuple[int, tuple[int, ...]]:
        """What the hand-made reference of the tests says."""
        left = list(self.pictures)
        own = [left.pop(0) if str(part).startswith("data:") else part for part in self.parts]
        text, media = as_prompt(own)
        length, ids = reference.answer(text, media, divprune_rule(self.ratio or KEEP_RATIO), ANSWER_LENGTH)
        return length, tuple(ids)


def questions(draw: random.Random) -> list[Question]:
    sizes = [(draw.randint(1, 700), draw.randint(1, 700)) for _ in range(NUM_PICTURES)]
    pictures = [picture(number).resize(size) for number, size in enumerate(sizes)]
    addresses = [data_url(encoded(each)) for each in pictures]

    def question() -> Question:
        chosen = [draw.randrange(NUM_PICTURES) for _ in range(draw.randint(0, 3))]
        words = [" ".join(f"word{draw.randrange(2, 56)}" for _ in range(draw.randint(1, 30))) for _ in range(2)]
        parts = [words[0], *(addresses[place] for place in chosen), words[1]]
        return Question(tuple(parts), tuple(pictures[place] for place in chosen), draw.choice(REQUEST_RATIOS))

    return [question() for _ in range(NUM_QUESTIONS)]


def refused_requests() -> list[tuple[list[Part], dict[str, Any] | None]]:
    good, jpeg = data_url(encoded(picture(0))), encoded(picture(1).resize((400, 300)), "JPEG")
    budgets: list[Any] = [0, 2, "abc", None, 0.9]
    unreadable = [data_url(jpeg[: len(jpeg) // 2]), data_url(b"no picture"), "data:image/png;base64,@@@"]
    return [
        *(([good, "word3"], {"keep_ratio": budget}) for budget in budgets),
        *(([good, "word3", address], None) for address in unreadable),
        ([good, "word3"], {"size": {"shortest_edge": 168}}),
        ([good] * 50, None),
        (["word3 " * 600], None),
    ]


class Soak:
    """Asks, and counts what comes back."""

    def __init__(self, server: Server, asked: Sequence[Question], alone: Sequence[Said]) -> None:
        self.server, self.asked, self.alone = server, asked, alone
        self.refusals = refused_requests()
        self.counts: Counter[str] = Counter()
        self._own = threading.local()

    def run(self, num_requests: int, concurrency: int, seed: int) -> None:
        draw = random.Random(seed)
        kinds = draw.choices(list(SHARES), list(SHARES.values()), k=num_requests)
        jobs = [(kind, draw.randrange(10**6)) for kind in kinds]
        with ThreadPoolExecutor(concurrency) as pool, tqdm(total=num_requests, desc="requests") as bar:
            for outcome in pool.map(lambda job: self._ask(*job), jobs):
                self.counts[outcome] += 1
                bar.update()

    def _ask(self, kind: str, number: int) -> str:
        if not hasattr(self._own, "client"):
            self._own.client = Client(self.server.address)
        client: Client = self._own.client
        if kind == "refused":
            return self._refused(client, *self.refusals[number % len(self.refusals)])
        place = number % len(self.asked)
        question = self.asked[place]
        if kind == "hung up":
            with client.stream(question.parts, question.kwargs, num_tokens=200) as stream:
                for _ in zip(range(number % 5), stream, strict=False):
                    pass
            return kind
        ask = client.ask if kind == "whole" else client.ask_streaming
        return compared(ask(question.parts, question.kwargs), self.alone[place], kind)

    def _refused(self, client: Client, parts: list[Part], kwargs: dict[str, Any] | None) -> str:
        try:
            client.ask(parts, kwargs)
        except APIStatusError as error:
            return "refused" if 400 <= error.status_code < 500 else f"failed with {error.status_code}"
        return "answered what must be refused"


def compared(said: Said, alone: Said, kind: str) -> str:
    if said.ids == alone.ids and said.prompt_tokens == alone.prompt_tokens:
        return kind
    first = next(
        (place for place, (one, other) in enumerate(zip(said.ids, alone.ids, strict=False)) if one != other), 0
    )
    same_prompt = said.prompt_tokens == alone.prompt_tokens and len(said.ids) == len(alone.ids)
    return "differs at a near tie" if same_prompt and alone.margins[first] <= NEAR_TIE else "differs"


def idle_again(server: Server) -> bool:
    """Whether no request and no KV block is left in use."""
    deadline, left = time.monotonic() + 30, 1.0
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left = sum(server.metric(name) for name in names)
    return not left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    # Live tensors do not grow, but the allocator's holes between them fill up slowly.
    parser.add_argument("--warm-up", type=int, default=40_000, help="requests before memory is looked at")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    # Servers run as `divprune serve` starts them: their threads wait as the libraries have it.
    os.environ.pop("OMP_WAIT_POLICY", None)
    origin, asked = provenance(), questions(random.Random(0))
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        WRITERS["llava"](model)
        pruned = ("--keep-ratio", str(KEEP_RATIO), "--allow-request-ratio")
        with running_server(model, Path(name) / "log.txt", pruned, FLAGS) as server:
            rows = soaked("pruned", server, asked, Reference(model), arguments)
        with running_server(model, Path(name) / "log.txt", None, FLAGS) as server:
            whole = [replace(question, ratio=None) for question in asked]
            rows += soaked("unpruned", server, whole, None, arguments)
    from vllm.version import __version__ as vllm_version

    config = {
        "model": "tiny LLaVA-1.5, random weights, float32",
        "keep_ratio": KEEP_RATIO,
        "num_requests": arguments.requests,
        "num_warm_up_requests": arguments.warm_up,
        "concurrency": arguments.concurrency,
        "num_questions": NUM_QUESTIONS,
        "num_pictures": NUM_PICTURES,
        "answer_tokens": ANSWER_LENGTH,
        "near_tie_logits": NEAR_TIE,
        "flags": list(FLAGS),
        "vllm": vllm_version,
    }
    print(Record(NAME, config, rows, origin).save(arguments.output))


def soaked(
    kind: str, server: Server, asked: list[Question], reference: Reference | None, arguments: Any
) -> list[dict[str, Any]]:
    """Rows of one server; the reference, if given, says what is right of a pruned one."""
    client = Client(server.address)
    alone = [client.ask(question.parts, question.kwargs, margins=True) for question in tqdm(asked, desc="alone")]
    right = reference and sum(
        (said.prompt_tokens, said.ids) == question.expected(reference)
        for said, question in zip(alone, asked, strict=True)
    )
    Soak(server, asked, alone).run(arguments.warm_up, arguments.concurrency, seed=1)
    soak = Soak(server, asked, alone)
    with MemoryLog(server.processes(), lambda: soak.counts.total()) as memory:
        started = time.perf_counter()
        soak.run(arguments.requests, arguments.concurrency, seed=2)
        seconds = time.perf_counter() - started
    summary = {
        "what": "requests",
        "server": kind,
        "alone_equal_reference": right,
        "outcomes": dict(soak.counts),
        "num_preempted": int(server.metric("vllm:num_preemptions_total")),
        "is_idle_again": idle_again(server),
        "is_healthy": server.health() == 200,
        "duration_seconds": round(seconds, 1),
    }
    return [summary, *({"server": kind} | row for row in memory.rows())]


if __name__ == "__main__":
    main()
