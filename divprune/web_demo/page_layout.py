"""Lay out the page of the web demo: which parts of gradio stand where."""

from dataclasses import dataclass
from importlib import resources
from typing import Any

from divprune.embedded import EXAMPLE_SEEDS
from divprune.embedded.examples import NUM_SCENES
from divprune.web_demo.options import RATIO_STEPS, WebDemoOptions

SCENES = {f"scene {seed}": seed for seed in EXAMPLE_SEEDS[:NUM_SCENES]}
IDLE_SECONDS = 3600
_INTRODUCTION = """\
# What the model still sees
To a multimodal model (here `{model}`), an image is a row of visual tokens, one for each small patch. Two methods choose
which of them the LLM reads: **bright patches are kept**, the dark ones it never sees. Move the slider, and ask.
"""


@dataclass
class Parts:
    """What is on the page, by what it holds; `sides` are methods A and B."""

    scene: Any
    upload: Any
    question: Any
    ask: Any
    slider: Any
    methods: list[Any]
    overlays: list[Any]
    programs: list[Any]
    commands: list[Any]
    answers: Any
    message: Any
    session: Any


def laid_out(model: str, options: WebDemoOptions, methods: list[str]) -> tuple[Any, Parts]:
    """Put the page together; gradio calls this a Blocks."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False, title="divprune demo", delete_cache=(IDLE_SECONDS, IDLE_SECONDS)) as blocks:
        session = gr.State(None, time_to_live=IDLE_SECONDS)
        gr.Markdown(_INTRODUCTION.format(model=model))
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                scene_choice = gr.Radio(list(SCENES), label="Bundled scenes", value=next(iter(SCENES)))
                upload = gr.File(label="Or your own image or short video", height=170)
                question = gr.Dropdown([], label="Question", allow_custom_value=True)
                ask = gr.Button("Answer", variant="primary")
                message, answers = _own_part("dp-told"), _own_part("dp-told")
            with gr.Column(scale=5, min_width=280):
                label = "Keep ratio: fraction of the visual tokens that stays"
                step = 1 / RATIO_STEPS
                slider = gr.Slider(step, 1, value=options.keep_ratio, step=step, label=label)
                with gr.Row():
                    sides = [
                        _side_column(letter, methods, spec) for letter, spec in zip("AB", options.methods, strict=True)
                    ]
    chosen, overlays, programs, commands = (list(each) for each in zip(*sides, strict=True))
    first = (scene_choice, upload, question, ask, slider)
    parts = Parts(*first, chosen, overlays, programs, commands, answers, message, session)
    return blocks, parts


def _side_column(letter: str, methods: list[str], spec: str) -> tuple[Any, ...]:
    import gradio as gr

    with gr.Column(min_width=260):
        choices = methods if spec in methods else [spec, *methods]
        method = gr.Dropdown(choices, value=spec, label=f"Method {letter}", allow_custom_value=True)
        overlay = _own_part()
        with gr.Accordion("Copy as Python", open=False):
            program = _own_part()
        with gr.Accordion("Copy as a server command", open=False):
            command = _own_part()
        return method, overlay, program, command


def _own_part(elem_classes: str | None = None) -> Any:
    """Return a place for HTML of ours."""
    import gradio

    return gradio.HTML(apply_default_css=False, elem_classes=elem_classes)


def page_head() -> str:
    """Return what the page needs in its head: the script that draws, and its style."""
    folder = resources.files("divprune.web_demo") / "templates"
    script, style, own = (
        (folder / name).read_text(encoding="utf-8") for name in ("viewer.js", "viewer.css", "page.css")
    )
    return f"<style>{own}{style}</style><script>{script}\ndivprune.watch();</script>"
