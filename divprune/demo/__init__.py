"""Demonstrate pruning: answer questions twice, from all visual tokens and from few, and report what changed.

from divprune.demo import DemoOptions, run_demo

result = run_demo(DemoOptions(images=(Path("photo.jpg"),), prompts=("What is this?",), model="..."))
"""

from typing import TYPE_CHECKING, Any

from divprune.demo.run import Demo, DemoOptions, run_demo

if TYPE_CHECKING:
    from divprune.demo.answering import AnswerPair, answer
    from divprune.demo.html_report import render_report, write_report
    from divprune.demo.summary import Summary

__all__ = [
    "AnswerPair",
    "Demo",
    "DemoOptions",
    "Summary",
    "answer",
    "render_report",
    "run_demo",
    "write_report",
]

_HOME = {
    "AnswerPair": "answering",
    "answer": "answering",
    "render_report": "html_report",
    "write_report": "html_report",
    "Summary": "summary",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for: mistakes in the options are told before."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"divprune.demo.{_HOME[name]}"), name)
