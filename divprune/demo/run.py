"""Run the demonstration: check, read the media, load the model, answer every question twice, write the report.

What needs neither torch nor a model is checked before either is there: mistakes are told at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divprune.budget import Budget, budget_or_default
from divprune.embedded.examples import DEFAULT_PROMPT, Example, bundled_scenes
from divprune.errors import ArgumentError, UnknownMethodError, argument_errors
from divprune.media import Medium, is_url, load_image, load_video
from divprune.outputs import files_of, safe_output, short
from divprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from divprune.checkpoints import LoadedModel
    from divprune.config import Newlines, Positions, PruningConfig, Scope
    from divprune.demo.answering import AnswerPair
    from divprune.demo.summary import Summary

EMBEDDED_REPORT_RATIOS = (0.05, 0.25)


@dataclass(frozen=True)
class DemoOptions:
    """What is asked, of whom, and how.

    Attributes:
        model: checkpoint directory or hub name; None for the embedded model.
        images: image files or URLs, shown together in one prompt; without images and videos the bundled scenes are
            shown.
        page: which page or frame of image files that have several, from 1; None for the first.
        allow_download: whether http(s) URLs among the images are fetched.
        videos: video files, shown after them.
        num_frames: sampled from each video.
        prompts: each asked by itself.
        method: as `get_method` reads it.
        keep_ratio: fraction of the visual tokens kept, in (0, 1]; 0.098 if `num_keep` is None too.
        num_keep: how many are kept of each item, instead.
        scope: as for `prune`.
        newlines: as for `prune`.
        encoder: as for `prune`, such as "tome:r=8"; answers from all visual tokens are without it.
        positions: as for `prune`.
        compare: also answer from all visual tokens.
        report: an HTML file to write.
        report_ratios: further keep ratios that the report can be switched to; None for 0.05 and 0.25 where the embedded
            model answers, and none elsewhere, where answers take longer.
        max_new_tokens: length limit of an answer.
        repeats: timed runs of each prompt, after a warm-up.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        dtype: "auto", "float32", "float16" or "bfloat16".
    """

    model: str | None = None
    images: tuple[Path | str, ...] = ()
    page: int | None = None
    allow_download: bool = False
    videos: tuple[Path, ...] = ()
    num_frames: int = 8
    prompts: tuple[str, ...] = ()
    method: str = "divprune"
    keep_ratio: float | None = None
    num_keep: int | None = None
    scope: "Scope" = "item"
    newlines: "Newlines" = "budget"
    encoder: str | None = None
    positions: "Positions | None" = None
    compare: bool = True
    report: Path | None = None
    report_ratios: tuple[float, ...] | None = None
    max_new_tokens: int = 64
    repeats: int = 5
    device: str = "auto"
    dtype: str = "auto"

    @property
    def budget(self) -> Budget:
        """How much is kept: the paper's fraction if nothing else is given."""
        return budget_or_default(self.keep_ratio, self.num_keep)

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ArgumentError: says which argument, and why.
        """
        _ = self.budget
        for ratio in self.report_ratios or ():
            with argument_errors():
                Budget(keep_ratio=ratio)
        if self.report_ratios and self.report is None:
            raise ArgumentError("`report_ratios` is of a report; give `report`, or leave it out")
        if self.report is not None:
            media = [Path(each) for each in (*self.images, *self.videos) if not is_url(each)]
            _check_report(self.report, (*media, *files_of(self.model)))
        if any(not prompt.strip() for prompt in self.prompts):
            raise ArgumentError("`prompts` is empty; ask something, or leave it out")

    def examples(self) -> Sequence[Example]:
        """Return the questions, with every image and video decoded; the bundled scenes if none is given.

        Raises:
            MediaError: a file is missing, damaged or of another kind.
        """
        if not self.images and not self.videos:
            return bundled_scenes(self.prompts)
        media: list[Medium] = [
            load_image(each, page=self.page, allow_download=self.allow_download) for each in self.images
        ]
        media += [load_video(path, self.num_frames) for path in self.videos]
        return [Example(tuple(media), prompt) for prompt in self.prompts or (DEFAULT_PROMPT,)]


@dataclass(frozen=True)
class Demo:
    """What came out.

    Attributes:
        options: what was asked for.
        loaded: the model that answered.
        config: how it was pruned.
        rows: the answers, one pair a question.
    """

    options: DemoOptions
    loaded: "LoadedModel"
    config: "PruningConfig"
    rows: Sequence["AnswerPair"]

    @property
    def summary(self) -> "Summary":
        """The numbers over all questions."""
        from divprune.demo.summary import Summary

        return Summary(self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "model": self.loaded.name,
            "method": self.options.method,
            "keep_ratio": self.config.keep_ratio,
            "encoder": None if self.config.encoder is None else str(self.config.encoder),
            "rows": [row.as_json() for row in self.rows],
        }


def run_demo(options: DemoOptions, progress: Progress = SILENT, *, show_download: bool = False) -> Demo:
    """Answer every question twice, and write the report if one is wanted.

    Args:
        options: what is asked.
        progress: is told how far it is.
        show_download: whether the hub may draw its progress bars.

    Raises:
        ArgumentError: an argument cannot work.
        DivpruneError: a file cannot be read, or the model cannot be loaded, pruned, or shown these media.
    """
    options.check()
    with progress.working("reading images and videos"):
        examples = options.examples()
    for medium in examples[0].media:
        medium.tell(progress)
    with progress.working("starting"):
        from divprune.checkpoints import checkpoint_config, choose_device, load_model
        from divprune.demo.answering import answer
        from divprune.huggingface import prune
        from divprune.huggingface.fitting import require_prunable
    config = _config(options)
    device = choose_device(options.device)
    shown = {medium.kind for example in examples for medium in example.media}
    require_prunable(checkpoint_config(options.model), (config,), shown)
    with progress.working("loading the model"):
        loaded = load_model(options.model, device, options.dtype, show_download=show_download)
    # What only the weights can tell is refused before the questions.
    with argument_errors(), prune(loaded.model, config):
        pass
    _tell(loaded, options, progress)
    rows = []
    others = {} if options.report is None else _others(options, config)
    with progress.counting("answering", len(examples)) as advance:
        for example in examples:
            row = answer(
                loaded,
                example,
                config,
                compare=options.compare,
                max_new_tokens=options.max_new_tokens,
                repeats=options.repeats,
                beside_random=options.compare and options.report is not None,
                others=others,
            )
            rows.append(row)
            advance(1)
    if options.report is not None:
        from divprune.demo.html_report import write_report

        with progress.working("writing the report"):
            write_report(options.report, rows, loaded, options.method, config)
    return Demo(options, loaded, config, rows)


def _check_report(path: Path, inputs: Sequence[Path]) -> None:
    """Refuse a place for the report that would cost a file, or that is not called so."""
    from divprune.demo.html_report import REPORT

    safe_output("report", path, REPORT, inputs)
    if path.suffix.lower() not in (".html", ".htm") and (path.is_file() or not path.exists()):
        raise ArgumentError(
            f"`report` {short(path)} must end in .html, such as report.html: it is a page for a browser"
        )


def _config(options: DemoOptions) -> "PruningConfig":
    from divprune.config import PruningConfig

    names = ("keep_ratio", "num_keep", "scope", "newlines", "encoder", "positions")
    try:
        with argument_errors():
            return PruningConfig.parse(options.method, **{name: getattr(options, name) for name in names})
    except UnknownMethodError as error:
        raise ArgumentError(f"{error} (see `divprune methods`)") from None


def _others(options: DemoOptions, config: "PruningConfig") -> "dict[str, PruningConfig]":
    """Return what else the report shows: other fractions of the tokens, by their titles."""
    ratios = options.report_ratios
    if ratios is None:
        ratios = EMBEDDED_REPORT_RATIOS if options.model is None else ()
    if not config.method.takes_budget:
        return {}
    return {
        f"keep_ratio {ratio:g}": replace(config, keep_ratio=ratio, num_keep=None)
        for ratio in ratios
        if ratio != config.keep_ratio
    }


def _tell(loaded: "LoadedModel", options: DemoOptions, progress: Progress) -> None:
    from divprune.embedded import EMBEDDED_FOLDERS
    from divprune.prompting import has_chat_template

    if loaded.name in EMBEDDED_FOLDERS and (options.images or options.videos):
        progress.note("the embedded model knows generated scenes only; give `model` for photographs")
    if not has_chat_template(loaded):
        progress.note(f"{loaded.name} has no chat template; the prompt is placeholders and question, nothing else")
