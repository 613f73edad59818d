"""Accuracy of a saved model on held-out images and videos: `python -m tools.embedded.evaluate --json FILE`.

Goes the way a user goes: AutoProcessor, AutoModelForImageTextToText, chat template, greedy `generate`.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune.checkpoints import EMBEDDED_VIDEO
from divprune.embedded import Question, Video, checkpoint_path
from divprune.embedded.videos import NUM_VIDEO_FRAMES
from divprune.evaluation.scenes.bench import CAPTION, IMAGE_BENCH, VIDEO_BENCH, SceneBench
from divprune.outputs import write_whole


def _middle_frame(shown: Video) -> list[Image.Image]:
    return [shown.frames[NUM_VIDEO_FRAMES // 2]] * NUM_VIDEO_FRAMES


ONE_FRAME_BENCH = replace(VIDEO_BENCH, media=_middle_frame)
"""Videos whose middle frame stands for all: what a question's answer owes to the other frames is seen here."""


@dataclass(frozen=True)
class Answered:
    """A question and what the model said."""

    question: Question
    said: str

    @property
    def is_right(self) -> bool:
        """Whether the answer is, word for word, the expected one."""
        return self.said == self.question.answer


@dataclass(frozen=True)
class KindAccuracy:
    """How many questions of a kind were asked and answered rightly."""

    num_right: int
    num_questions: int
    accuracy: float


def prompt_text(processor: Any, question: str, modality: str = "image") -> str:
    """One image or video and one question in the model's chat format."""
    content = [{"type": modality}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


@torch.inference_mode()
def answer_batch(
    model: Any, processor: Any, asked: list[tuple[Any, Question]], bench: SceneBench = IMAGE_BENCH
) -> list[Answered]:
    """Greedy answers to a batch of questions about images or videos."""
    inputs = processor(
        **{f"{bench.modality}s": [bench.media(item) for item, _ in asked]},
        text=[prompt_text(processor, question.prompt, bench.modality) for _, question in asked],
        padding=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, do_sample=False, max_new_tokens=48)
    texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [Answered(question, text.strip()) for (_, question), text in zip(asked, texts, strict=True)]


def answer_scenes(
    model: Any,
    processor: Any,
    scenes: list[Any],
    kinds: tuple[str, ...] | None = None,
    batch_size: int = 48,
    bench: SceneBench = IMAGE_BENCH,
) -> Iterator[Answered]:
    """Ask one question of each kind (existence: two) about every image or video; None asks all kinds."""
    asked = [
        (item, question) for item in scenes for question in bench.ask(item) if question.kind in (kinds or bench.kinds)
    ]
    # Captions are long: answered together they do not hold up the short ones.
    asked.sort(key=lambda pair: pair[1].kind == CAPTION)
    for first in tqdm(range(0, len(asked), batch_size), desc="answering", unit="batch"):
        yield from answer_batch(model, processor, asked[first : first + batch_size], bench)


def accuracies(answered: list[Answered]) -> dict[str, KindAccuracy]:
    """Accuracy by kind, in the order in which the kinds are asked."""
    table = {}
    for kind in dict.fromkeys(kind for bench in (IMAGE_BENCH, VIDEO_BENCH) for kind in bench.kinds):
        marks = [one.is_right for one in answered if one.question.kind == kind]
        if marks:
            table[kind] = KindAccuracy(sum(marks), len(marks), round(sum(marks) / len(marks), 4))
    return table


def evaluate(folder: Path, num_scenes: int, first_seed: int = 0, bench: SceneBench = IMAGE_BENCH) -> dict[str, Any]:
    """Measure a saved model on test images or videos; the result is ready for JSON."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    scenes = [bench.draw(seed) for seed in range(first_seed, first_seed + num_scenes)]
    started = time.perf_counter()
    answered = list(answer_scenes(model, processor, scenes, bench=bench))
    return {
        "split": "test",
        "first_seed": first_seed,
        "num_scenes": num_scenes,
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "kinds": {kind: asdict(result) for kind, result in accuracies(answered).items()},
    }


def main() -> None:
    """Measure, print, and write a JSON file if asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="folder of a saved model (default: the bundled one)")
    parser.add_argument("--scenes", type=int, default=500, help="how many images")
    parser.add_argument("--videos", type=int, default=0, help="how many videos before them, whole and by one frame")
    parser.add_argument("--json", type=Path, default=None, help="where to write the result")
    arguments = parser.parse_args()
    if arguments.videos:
        folder = arguments.model or checkpoint_path(EMBEDDED_VIDEO)
        benches = {"videos": VIDEO_BENCH, "one_frame": ONE_FRAME_BENCH, "images": IMAGE_BENCH}
        numbers = {"images": arguments.scenes}
        result = {
            name: evaluate(folder, numbers.get(name, arguments.videos), bench=bench) for name, bench in benches.items()
        }
    else:
        result = evaluate(arguments.model or checkpoint_path(), arguments.scenes)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        write_whole(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
