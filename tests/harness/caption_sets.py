"""The caption data sets, and GQA, in the hub's schemas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Image, Sequence, Value

from tests.harness.data_making import CAPTION, NUMBER, SHORT, TEXT, Made, picture, table

CAPTIONS = [
    "A red circle beside two green squares on a striped floor.",
    "Three yellow stars float above one purple ring.",
    "Someone painted a small white cross near an orange triangle.",
    "Several cyan shapes overlap in the bottom left corner.",
]
UNRELATED = ["Dogs.", "Nobody knows anything whatsoever about these.", "", "Traffic lights everywhere tonight."]


def captions(key: str, split: str, names: tuple[str, str, str], own: dict[str, tuple[Any, Any]]) -> Made:
    """A caption data set; every picture has five equal references, so that a copy scores 10 and other words 0."""
    image, identity, references = names
    features = {image: Image(), identity: own[identity][0], references: Sequence(TEXT)}
    features |= {name: kind for name, (kind, _) in own.items() if name != identity}
    documents = [
        {image: picture(place), references: [text] * 5} | {name: value(place) for name, (_, value) in own.items()}
        for place, text in enumerate(CAPTIONS)
    ]
    return Made(key, split, features, documents, CAPTIONS, UNRELATED, [CAPTION] * 4, (10.0, 5.0, 0.0))


def coco2017() -> Made:
    number: Callable[[int], int] = lambda place: 139 + place  # noqa: E731
    own = {
        "id": (NUMBER, number),
        "question_id": (TEXT, lambda place: f"{number(place):012d}.jpg"),
        "question": (TEXT, lambda place: "Please come up with a caption for the image."),
        "file_name": (TEXT, lambda place: f"{number(place):012d}.jpg"),
        "height": (NUMBER, lambda place: 128),
        "date_captured": (TEXT, lambda place: "2013-11-21 01:34:01"),
    }
    return captions("coco2017", "val", ("image", "id", "answer"), own)


def flickr30k() -> Made:
    own = {
        "img_id": (TEXT, str),
        "sentids": (Sequence(TEXT), lambda place: [str(5 * place + each) for each in range(5)]),
        "filename": (TEXT, lambda place: f"{1000 + place}.jpg"),
    }
    return captions("flickr30k", "test", ("image", "img_id", "caption"), own)


def nocaps() -> Made:
    own = {
        "image_id": (NUMBER, lambda place: place),
        "image_open_images_id": (TEXT, lambda place: f"0013ea2087020901{place}"),
        "annotations_ids": (Sequence(NUMBER), lambda place: [10 * place + each for each in range(5)]),
    }
    return captions("nocaps", "validation", ("image", "image_id", "annotations_captions"), own)


GQA_WORDS = [("Is it dark?", "yes"), ("What color is it?", "blue"), ("Who is there?", "man"), ("What is it?", "cup")]


def gqa() -> Made:
    features = {"id": TEXT, "imageId": TEXT, "question": TEXT, "isBalanced": Value("bool"), "answer": TEXT}
    features |= {"fullAnswer": TEXT, "semanticStr": TEXT}
    documents = [
        {"id": f"20{place}", "imageId": f"n{place % 2}", "question": question, "isBalanced": True, "answer": answer}
        | {"fullAnswer": f"It is {answer}.", "semanticStr": "select: sky [2486325]"}
        for place, (question, answer) in enumerate(GQA_WORDS)
    ]
    right = ["Yes", "blue.", "man", "Cup"]
    prompts = [question + SHORT for question, _ in GQA_WORDS]
    return Made("gqa", "testdev", features, documents, right, ["none"] * 4, prompts, (1.0, 0.5, 0.0), GQA_QUESTIONS)


GQA_QUESTIONS, GQA_PICTURES = "testdev_balanced_instructions", "testdev_balanced_images"


def write_gqa_pictures(data: Path) -> None:
    folder = data / "gqa" / GQA_PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"n{place}", "image": picture(place)} for place in range(2)]
    table(rows, {"id": TEXT, "image": Image()}).to_parquet(folder / "testdev-00000-of-00001.parquet")
