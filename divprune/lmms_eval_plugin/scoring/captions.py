"""CIDEr of captions against several references, overall and for each image.

R. Vedantam, C. L. Zitnick, D. Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, by
pycocoevalcap's scorer. Published numbers come from words split by Stanford's PTB tokenizer, which needs Java; where the
run allows it, `words.py` splits them instead. The weight of a word depends on all images of a run.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from divprune.errors import EvaluationError, first_line
from divprune.evaluation import cider as scorer
from divprune.lmms_eval_plugin.scoring.documents import Document
from divprune.lmms_eval_plugin.scoring.settings import ScoringSettings, current
from divprune.lmms_eval_plugin.scoring.words import split_words

NO_JAVA = (
    "CIDEr needs the program 'java' for the official tokenizer; install a Java runtime (Debian, Ubuntu: apt-get "
    "install default-jre-headless), or allow the tokenizer in Python, whose scores differ by about 0.001"
)


def coco(document: Document, answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a caption of COCO 2017."""
    return {"coco_CIDEr": _mark(document["id"], document["answer"], answers)}


def flickr(document: Document, answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a caption of Flickr30k."""
    return {"flickr_CIDEr": _mark(document["img_id"], document["caption"], answers)}


def nocaps(document: Document, answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a caption of NoCaps."""
    return {"nocaps_CIDEr": _mark(document["image_id"], document["annotations_captions"], answers)}


def _mark(image_id: Any, references: Sequence[str], answers: Sequence[str]) -> dict[str, Any]:
    return {"image_id": image_id, "answer": list(references), "pred": answers[0] if answers else ""}


def cider(results: Sequence[dict[str, Any]]) -> float:
    """Return the mean of the images' CIDEr."""
    scores = caption_cider(results)
    return sum(scores) / len(scores)


_SCORED: dict[str, list[float]] = {}  # the last results only: sample scores are asked for right after the metric


def caption_cider(results: Sequence[dict[str, Any]]) -> list[float]:
    """Each image's CIDEr among these images.

    Args:
        results: sample scores with the caption ("pred") and its references ("answer").
    """
    tokenizer = chosen_tokenizer(current())
    texts = [[result["pred"], *result["answer"]] for result in results]
    key = hashlib.sha256(json.dumps([tokenizer, texts]).encode()).hexdigest()
    if key not in _SCORED:
        scores = _cider(texts, tokenizer)
        _SCORED.clear()
        _SCORED[key] = scores
    return list(_SCORED[key])


def _cider(texts: Sequence[Sequence[str]], tokenizer: str) -> list[float]:
    flat = [text for of_one in texts for text in of_one]
    words = iter(java_words(flat) if tokenizer == "java" else [split_words(text) for text in flat])
    split = [[next(words) for _ in of_one] for of_one in texts]
    return scorer.cider_scores([of_one[0] for of_one in split], [of_one[1:] for of_one in split])


def chosen_tokenizer(settings: ScoringSettings) -> str:
    """Return the tokenizer that scores will come from: "java" or "python".

    Raises:
        EvaluationError: the official one is wanted, and there is no Java.
    """
    if settings.tokenizer == "python":
        return "python"
    if shutil.which("java") is None:
        raise EvaluationError(NO_JAVA)
    return "java"


def java_words(texts: Sequence[str]) -> list[str]:
    """Each text in lower case, its words apart, without punctuation, by Stanford's PTB tokenizer.

    The same call as pycocoevalcap's, which writes into its own folder and reads in the system's encoding.

    Raises:
        EvaluationError: Java failed.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captions.txt"
        # One line a caption: a caption's own line breaks, of any kind, are blanks.
        file.write_text("\n".join(" ".join(text.split()) for text in texts), encoding="utf-8")
        java = ["java", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", str(jar)]
        tokenizer = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", str(file)]
        done = subprocess.run([*java, *tokenizer], capture_output=True, text=True, encoding="utf-8", check=False)
    lines = done.stdout.split("\n")[: len(texts)]
    if done.returncode or len(lines) < len(texts):
        raise EvaluationError(f"the caption tokenizer failed: {first_line(RuntimeError(done.stderr))}")
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.rstrip().split(" ") if word not in dropped) for line in lines]
