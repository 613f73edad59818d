"""What a pruned server says of its pruning: in headers, at /v1/models, at /metrics."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin import metrics, reporting_middleware, token_counts
from divprune.vllm_plugin.token_counts import ItemCount
from divprune.vllm_plugin.watcher import METRICS_FOLDER
from tests.serving.cases import RATIO, SMALL_RATIO, picture
from tests.serving.clients import NUM_TOKENS, Client, Part
from tests.serving.servers import Server

pytestmark = pytest.mark.timeout(400)

SEEN, KEPT = "divprune:visual_tokens_total", "divprune:kept_visual_tokens_total"
QUESTION: list[Part] = [picture(10), "word3", picture(11)]
HEADERS = ("x-divprune-visual-tokens", "x-divprune-kept-visual-tokens")


def headers_of(client: Client, parts: list[Part], kwargs: dict[str, Any] | None = None, **extra: Any) -> Any:
    request = client._request(parts, kwargs, NUM_TOKENS)
    with client.openai.chat.completions.with_streaming_response.create(**request, **extra) as response:
        list(response.iter_lines())
        return tuple(response.headers.get(name) for name in HEADERS)


@pytest.mark.parametrize("extra", [{}, {"stream": True}])
def test_headers_tell_what_a_prompt_had_and_has(client: Client, extra: dict[str, Any]) -> None:
    # 9 of 36 tokens of each of two pictures; 4 of 36 where the request asks for a tenth.
    assert headers_of(client, QUESTION, **extra) == ("72", "18")
    assert headers_of(client, QUESTION, {"keep_ratio": SMALL_RATIO}, **extra) == ("72", "8")
    assert headers_of(client, ["word3"], **extra) == (None, None)


def test_metrics_count_answered_requests_only(server: Server, client: Client) -> None:
    def counts() -> tuple[float, ...]:
        ratios = ("divprune:request_keep_ratio_count", "divprune:request_keep_ratio_sum")
        image = [server.metric(name, modality="image") for name in (SEEN, KEPT)]
        return (*image, *(server.plain_metric(name) for name in ratios))

    client.ask(QUESTION)
    before = counts()
    client.ask(QUESTION)
    client.ask([picture(10), "word3"], {"keep_ratio": SMALL_RATIO})
    client.ask(["word3"])
    with pytest.raises(Exception, match="at most 9 of 36"):
        client.ask(QUESTION, {"keep_ratio": 0.9})
    added = [now - then for now, then in zip(counts(), before, strict=True)]
    assert added == pytest.approx([108, 22, 2, RATIO + 4 / 36])


def test_metrics_tell_the_time_of_selection_of_what_was_encoded(server: Server, client: Client) -> None:
    names = ("divprune:selections_total", "divprune:selection_seconds_total")
    client.ask([picture(10)])
    before = [server.metric(name, modality="image") for name in names]
    client.ask([picture(10), picture(50)])
    after = [server.metric(name, modality="image") for name in names]
    # The first one's rows were in the encoder's cache.
    assert after[0] - before[0] == 1
    assert after[1] > before[1] > 0


def test_models_say_how_they_are_pruned(server: Server) -> None:
    with urllib.request.urlopen(f"{server.address}/v1/models", timeout=30) as response:
        (card,) = json.loads(response.read())["data"]
    assert card["divprune"] == {
        "keep_ratio": RATIO,
        "method": "divprune",
        "allow_request_ratio": True,
        "allow_untested_vllm": False,
        "positions": "original",
    }


def test_many_clients_get_their_own_counts(server: Server) -> None:
    def ask(number: int) -> tuple[int, Any]:
        parts: list[Part] = [picture(number + place) for place in range(1 + number % 3)]
        return number, headers_of(Client(server.address), parts)

    with ThreadPoolExecutor(12) as pool:
        for number, found in pool.map(ask, range(24)):
            num_pictures = 1 + number % 3
            assert found == (str(36 * num_pictures), str(9 * num_pictures))


def test_images_are_processed_in_the_context_of_their_request() -> None:
    renderer = SimpleNamespace(_mm_executor=ThreadPoolExecutor(1))
    reporting_middleware._carry_context(renderer)
    with token_counts.counted_items() as items:
        renderer._mm_executor.submit(token_counts.count_item, ItemCount("image", 36, 9)).result()
    renderer._mm_executor.submit(token_counts.count_item, ItemCount("image", 1, 1)).result()
    assert items == [ItemCount("image", 36, 9)]


def test_another_renderer_is_refused_when_the_server_starts() -> None:
    with pytest.raises(UnsupportedVersionError, match="`_mm_executor` is no executor"):
        reporting_middleware._carry_context(SimpleNamespace(_mm_executor=None))


def test_workers_sums_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS_FOLDER, str(tmp_path))
    monkeypatch.delenv(metrics.SHARED_BY_VLLM, raising=False)
    registry = CollectorRegistry()
    metrics.share_selection_times(registry)
    for number in (1, 2):
        monkeypatch.setattr(metrics.os, "getpid", lambda number=number: number)
        times = metrics.SelectionTimes()
        times.add("image", 2, 0.5)
        times.add("image", 1, 0.25)
        times.add("video", 1, 0.125)
    assert registry.get_sample_value("divprune:selections_total", {"modality": "image"}) == 6
    assert registry.get_sample_value("divprune:selection_seconds_total", {"modality": "image"}) == 1.5
    assert registry.get_sample_value("divprune:selection_seconds_total", {"modality": "video"}) == 0.25


def test_without_a_folder_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(METRICS_FOLDER, raising=False)
    monkeypatch.delenv(metrics.SHARED_BY_VLLM, raising=False)
    metrics.SelectionTimes().add("image", 1, 1.0)
    registry = CollectorRegistry()
    metrics.share_selection_times(registry)
    assert not list(registry.collect())


def test_ratios_are_of_requests_with_something_to_prune() -> None:
    registry = CollectorRegistry()
    counted = metrics.TokenMetrics(registry)
    counted.add([ItemCount("image", 100, 10), ItemCount("video", 300, 10)])
    counted.add([])
    assert registry.get_sample_value("divprune:visual_tokens_total", {"modality": "video"}) == 300
    assert registry.get_sample_value("divprune:request_keep_ratio_count") == 1
    assert registry.get_sample_value("divprune:request_keep_ratio_sum") == 0.05
