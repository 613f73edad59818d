"""Lay out the page of the web demo in gradio, and answer its events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from divprune.checkpoints import EMBEDDED
from divprune.embedded import questions, scene
from divprune.embedded.examples import DEFAULT_PROMPT, KINDS_ASKED, Example
from divprune.errors import DivpruneError
from divprune.media import Medium
from divprune.web_demo.options import WebDemoOptions
from divprune.web_demo.overlay_data import on_step
from divprune.web_demo.page_layout import SCENES, laid_out
from divprune.web_demo.page_parts import answers_html, copy_html, message_html, overlay_html, reason_html, waiting_html
from divprune.web_demo.session import Session, is_nested
from divprune.web_demo.shared_model import SharedModel
from divprune.web_demo.snippets import MediumSource, of_file, of_scene, python_code, server_command
from divprune.web_demo.uploads import read_upload

Updates = dict[Any, Any]
"""New values, by component."""


@dataclass
class Visit:
    """A visitor's session, and how Python gets at the medium in it."""

    session: Session
    source: MediumSource
    expected: Mapping[str, str] = field(default_factory=dict)
    """The right answers of the questions that have known ones."""


def told(*emptied: str) -> Callable[[Callable[..., Updates]], Callable[..., Updates]]:
    """Show what goes wrong inside an event as a message on the page, and take the message away when nothing does.

    Args:
        emptied: parts of the page that show nothing when something goes wrong.
    """

    def decorate(function: Callable[..., Updates]) -> Callable[..., Updates]:
        @wraps(function)
        def event(page: "DemoPage", *arguments: Any) -> Updates:
            try:
                return {page.parts.message: ""} | function(page, *arguments)
            except DivpruneError as error:
                message = {page.parts.message: message_html(str(error))}
                return message | {getattr(page.parts, name): "" for name in emptied}

        return event

    return decorate


class DemoPage:
    """What happens on the page. Whatever belongs to a visitor is in the `Visit` that each event is given."""

    def __init__(self, shared: SharedModel, options: WebDemoOptions, methods: list[str]) -> None:
        """Build the page.

        Args:
            shared: the model.
            options: of the demo.
            methods: names of those that can prune the model.
        """
        self.shared, self.options = shared, options
        self.blocks, self.parts = laid_out(shared.loaded.name, options, methods)
        _connect(self)

    @told()
    def show_scene(self, name: str | None, spec_a: str, spec_b: str, keep_ratio: float) -> Updates:
        """Begin with a bundled scene."""
        seed = SCENES[name or next(iter(SCENES))]
        shown = scene(seed, "test")
        asked = [each for each in questions(shown) if each.kind in KINDS_ASKED]
        medium = Medium(f"scene {seed}", "image", (shown.image,))
        visit = Visit(
            Session(self.shared, Example((medium,), asked[0].prompt)),
            of_scene(seed),
            {each.prompt: each.answer for each in asked},
        )
        return self._begin(visit, (spec_a, spec_b), keep_ratio) | {self.parts.scene: f"scene {seed}"}

    @told()
    def show_upload(self, path: str | None, spec_a: str, spec_b: str, keep_ratio: float) -> Updates:
        """Begin with a visitor's own image or video."""
        if path is None:
            return {}
        medium = read_upload(Path(path), self.options.num_frames)
        session = Session(self.shared, Example((medium,), DEFAULT_PROMPT))
        visit = Visit(session, of_file(medium, self.options.num_frames))
        updates = self._begin(visit, (spec_a, spec_b), keep_ratio) | {self.parts.scene: None}
        notes = [medium.note] if medium.note else []
        if self.shared.loaded.name == EMBEDDED:
            notes.append("the embedded model knows generated scenes only: start the demo with --model for photographs")
        return updates | ({self.parts.message: message_html("; ".join(notes))} if notes else {})

    @told()
    def ask_about(self, visit: Visit | None, prompt: str | None, spec_a: str, spec_b: str, ratio: float) -> Updates:
        """Change the question: methods that read it choose anew."""
        _present(visit).session.ask(prompt or "")
        return self._both(_present(visit), (spec_a, spec_b), ratio) | {self.parts.answers: ""}

    @told()
    def change_method(self, visit: Visit | None, side: int, spec: str, keep_ratio: float) -> Updates:
        """Draw another method on one side."""
        return self._side(_present(visit), side, spec, keep_ratio)

    @told()
    def settle(self, visit: Visit | None, spec_a: str, spec_b: str, keep_ratio: float) -> Updates:
        """Follow the slider with what the browser cannot cut off by itself."""
        updates: Updates = {}
        for side, spec in enumerate((spec_a, spec_b)):
            found = self._side(_present(visit), side, spec, keep_ratio)
            if is_nested(spec):
                del found[self.parts.overlays[side]]
            updates |= found
        return updates

    @told("answers")
    def answer(self, visit: Visit | None, prompt: str | None, spec_a: str, spec_b: str, ratio: float) -> Updates:
        """Answer from all visual tokens, and from what each method keeps."""
        present, specs, ratio = _present(visit), (spec_a, spec_b), on_step(ratio)
        present.session.ask(prompt or "")
        unpruned, pruned = present.session.answers(specs, ratio)
        asked = present.session.example.prompt
        titles = [f"{letter}: {spec} at {ratio:g}" for letter, spec in zip("AB", specs, strict=True)]
        answers = list(zip(titles, pruned, strict=True))
        return {self.parts.answers: answers_html(asked, present.expected.get(asked), answers, unpruned)}

    def _begin(self, visit: Visit, specs: tuple[str, str], keep_ratio: float) -> Updates:
        import gradio

        prompt, choices = visit.session.example.prompt, list(visit.expected) or [DEFAULT_PROMPT]
        question = gradio.Dropdown(choices=choices, value=prompt)
        begun = {self.parts.session: visit, self.parts.question: question, self.parts.answers: ""}
        return begun | self._both(visit, specs, keep_ratio)

    def _both(self, visit: Visit, specs: tuple[str, str], keep_ratio: float) -> Updates:
        return self._side(visit, 0, specs[0], keep_ratio) | self._side(visit, 1, specs[1], keep_ratio)

    def _side(self, visit: Visit, side: int, spec: str, keep_ratio: float) -> Updates:
        keep_ratio = on_step(keep_ratio)
        place = (self.parts.overlays[side], self.parts.programs[side], self.parts.commands[side])
        try:
            overlay = overlay_html(visit.session.overlay(spec, keep_ratio), keep_ratio)
        except DivpruneError as error:
            # What another method kept must not stand under this one's name.
            return dict(zip(place, (message_html(str(error)), "", ""), strict=True))
        program = python_code(self.options, visit.source, visit.session.example.prompt, spec, keep_ratio)
        shown = (overlay, copy_html(program), self._command(visit, spec, keep_ratio))
        return dict(zip(place, shown, strict=True))

    def _command(self, visit: Visit, spec: str, keep_ratio: float) -> str:
        config, (medium,) = self.shared.loaded.model.config, visit.session.example.media
        try:
            return copy_html(server_command(self.options, config, medium.kind, spec, keep_ratio))
        except DivpruneError as error:
            return reason_html(str(error))


def _present(visit: Visit | None) -> Visit:
    """Return a visitor's session.

    Raises:
        DivpruneError: it is gone.
    """
    if visit is None:
        raise DivpruneError("this page was idle for too long, and what it showed is forgotten; choose an image again")
    return visit


def _connect(page: DemoPage) -> None:
    """Say which event calls what."""
    parts = page.parts
    specs, ratio = parts.methods, parts.slider
    sides = [*parts.overlays, *parts.programs, *parts.commands, parts.message]
    begun = [parts.session, parts.scene, parts.question, parts.answers, *sides]
    # One at a time, as the model is; gradio tells waiting visitors that they wait.
    busy = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
    with page.blocks:
        page.blocks.load(page.show_scene, [parts.scene, *specs, ratio], begun, **busy)
        parts.scene.input(page.show_scene, [parts.scene, *specs, ratio], begun, **busy)
        parts.upload.upload(page.show_upload, [parts.upload, *specs, ratio], begun, **busy)
        asked = [parts.session, parts.question, *specs, ratio]
        parts.question.input(page.ask_about, asked, [*sides, parts.answers], **busy)
        clicked = parts.ask.click(waiting_html, None, [parts.answers], queue=False, api_visibility="private")
        clicked.then(page.answer, asked, [parts.answers, parts.message], **busy)
        for side, method in enumerate(parts.methods):
            _connect_method(page, side, method, busy)
        parts.slider.change(None, [ratio], None, js="(ratio) => { divprune.slide(ratio); return []; }")
        moved = {"show_progress": "hidden", "trigger_mode": "always_last"}
        parts.slider.change(page.settle, [parts.session, *specs, ratio], sides, **moved, **busy)


def _connect_method(page: DemoPage, side: int, method: Any, busy: Mapping[str, Any]) -> None:
    def change(visit: Visit | None, spec: str, keep_ratio: float) -> Updates:
        return page.change_method(visit, side, spec, keep_ratio)

    parts = page.parts
    outputs = [parts.overlays[side], parts.programs[side], parts.commands[side], parts.message]
    method.input(change, [parts.session, method, parts.slider], outputs, **busy)
