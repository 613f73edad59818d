"""The parts of the page that are not gradio's: HTML of the overlays, the answers, what can be copied, and messages."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from divprune.records import seconds_text
from divprune.web_demo.shared_model import ModelAnswer


def overlay_html(data: dict[str, Any], keep_ratio: float) -> str:
    """Return an element that `viewer.js` draws into.

    Args:
        data: see `overlay_data`.
        keep_ratio: where the slider was when it was made.
    """
    text = escape(json.dumps(data, separators=(",", ":"), allow_nan=False))
    return f'<div class="dp-overlay" data-ratio="{keep_ratio!r}" data-overlay="{text}"></div>'


def message_html(text: str) -> str:
    """Return a message that a screen reader announces; nothing for none."""
    return f'<p class="dp-message" role="alert">{escape(text)}</p>' if text else ""


def waiting_html() -> str:
    """Return what stands in the place of answers that are being given."""
    return '<p class="dp-asked" role="status">Answering …</p>'


def copy_html(text: str) -> str:
    """Return something to be copied, with a button that does."""
    return f'<div class="dp-copy"><pre tabindex="0">{escape(text)}</pre><button type="button">Copy</button></div>'


def reason_html(text: str) -> str:
    """Return why there is nothing to be copied."""
    return f'<p class="dp-asked">{escape(text)}</p>'


def answers_html(
    prompt: str, expected: str | None, answers: Sequence[tuple[str, ModelAnswer]], unpruned: ModelAnswer
) -> str:
    """Return the answers side by side, and what each took.

    Args:
        prompt: the question.
        expected: the right answer, where it is known.
        answers: the pruned ones, with the method and keep ratio of each in words.
        unpruned: from all visual tokens.
    """
    right = "" if expected is None else f" Right: <b>{escape(expected)}</b>."
    shown = [("unpruned", unpruned), *answers]
    cards = [_card(title, each, unpruned, expected) for title, each in shown]
    return f'<p class="dp-asked">“{escape(prompt)}”{right}</p><div class="dp-answers">{"".join(cards)}</div>'


def _card(title: str, answer: ModelAnswer, unpruned: ModelAnswer, expected: str | None) -> str:
    rows = {
        "visual tokens": f"{answer.num_kept} of {answer.num_visual_tokens}",
        "KV cache of the prompt": bytes_text(answer.kv_cache_bytes),
    }
    if answer.prefill is not None and unpruned.prefill is not None:
        rows["time to first token"] = seconds_text(answer.prefill.median)
        if answer is not unpruned:
            rows["as fast as unpruned"] = f"{unpruned.prefill.median / answer.prefill.median:.2f} x"
            rows["selection, in it"] = seconds_text(answer.selection_seconds)
    terms = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items())
    mark = "" if expected is None else "✓ " if answer.text == expected else "✗ "
    text = mark + (escape(answer.text) or "(no answer)")
    return f'<section class="dp-answer"><h2>{escape(title)}</h2><p class="dp-text">{text}</p><dl>{terms}</dl></section>'


def bytes_text(num_bytes: int) -> str:
    """Return a number of bytes in words, such as "1.4 MiB"."""
    return f"{num_bytes / 2**20:.3g} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.3g} KiB"
