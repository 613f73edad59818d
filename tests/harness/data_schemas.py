"""Local data in the schemas of the hub's data sets, with answers of which it is known how they are scored.

Columns and types are those that the task files read, and most others of the data sets; pictures are generated scenes,
clips are a few frames encoded by PyAV.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import datasets
from datasets import Features, Image, Sequence, Value
from PIL import Image as Pictures

from divprune.tiny import scene

TEXT, NUMBER = Value("string"), Value("int64")
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."


@dataclass(frozen=True)
class Made:
    """A small data set.

    Attributes:
        key: of the data set.
        split: that the task evaluates.
        features: columns and types.
        documents: rows.
        right: answers that are scored as right, one a row that the task asks.
        wrong: answers that are not.
        prompts: word for word, one a row that the task asks.
        scores: of the metric, in its unit: all right, the first half right, all wrong.
        configuration: the folder within the data set's.
        clips: names of clips without ending.
        num_pictures: that each question shows.
    """

    key: str
    split: str
    features: dict[str, Any]
    documents: list[dict[str, Any]]
    right: list[str]
    wrong: list[str]
    prompts: list[str]
    scores: tuple[float, float, float] = (1.0, 0.5, 0.0)
    configuration: str | None = None
    clips: list[str] = field(default_factory=list)
    num_pictures: list[int] | None = None

    @property
    def half(self) -> list[str]:
        middle = len(self.right) // 2
        return self.right[:middle] + self.wrong[middle:]

    def write(self, data: Path) -> Path:
        """Write the data set into its folder of a folder of data; return that folder."""
        folder = data / self.key
        inner = folder / self.configuration if self.configuration else folder
        inner.mkdir(parents=True, exist_ok=True)
        table(self.documents, self.features).to_parquet(inner / f"{self.split}-00000-of-00001.parquet")
        for place, name in enumerate(self.clips):
            write_clip(folder / "videos" / f"{name}.mp4", place)
        return folder


def table(documents: list[dict[str, Any]], features: dict[str, Any]) -> datasets.Dataset:
    return datasets.Dataset.from_list(documents, features=Features(features))


def picture(seed: int) -> Pictures.Image:
    return scene(seed).image


def write_clip(path: Path, seed: int, num_frames: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for place in range(num_frames):
            frame = av.VideoFrame.from_image(picture(seed + place % 2).resize((64, 64)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


CAPTIONS = [
    "A red circle beside two green squares on a striped floor.",
    "Three yellow stars float above one purple ring.",
    "Someone painted a small white cross near an orange triangle.",
    "Several cyan shapes overlap in the bottom left corner.",
]
UNRELATED = ["Dogs.", "Nobody knows anything whatsoever about these.", "", "Traffic lights everywhere tonight, honestly."]


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
        "question": (TEXT, lambda place: "Please carefully observe the image and come up with a caption for the image."),
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


GQA_WORDS = [("Is the sky dark?", "yes"), ("What color is it?", "blue"), ("Who is there?", "man"), ("What is it?", "cup")]


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


def mmbench() -> Made:
    names = "question hint answer A B C D category source L2-category comment split".split()
    features = {"index": NUMBER, "image": Image()} | dict.fromkeys(names, TEXT)
    rows = [
        (241, "What is above?", "nan", "A", ("sky", "sea", "nan", "nan")),
        (1000241, "What is above?", "nan", "B", ("sea", "sky", "nan", "nan")),
        (252, "Which one?", "Look closely.", "D", ("red", "green", "blue", "white")),
        (1000252, "Which one?", "Look closely.", "A", ("white", "red", "green", "blue")),
    ]
    documents = [
        {"index": index, "image": picture(place), "question": question, "hint": hint, "answer": answer}
        | dict(zip("ABCD", options, strict=True))
        | {"category": "object_localization", "source": "reasonseg", "L2-category": "finegrained", "comment": "nan"}
        | {"split": "dev"}
        for place, (index, question, hint, answer, options) in enumerate(rows)
    ]
    prompts = [
        "What is above? There are several options:\nA. sky\nB. sea\n" + LETTER,
        "What is above? There are several options:\nA. sea\nB. sky\n" + LETTER,
        "Look closely. Which one? There are several options:\nA. red\nB. green\nC. blue\nD. white\n" + LETTER,
        "Look closely. Which one? There are several options:\nA. white\nB. red\nC. green\nD. blue\n" + LETTER,
    ]
    right = ["A", "(B)", "D. white", "It is white."]
    scores = (100.0, 50.0, 0.0)
    return Made("mmbench", "dev", features, documents, right, ["B", "A", "hm", "?"], prompts, scores, "en")


def mme() -> Made:
    features = {"question_id": TEXT, "image": Image(), "question": TEXT, "answer": TEXT, "category": TEXT}
    asked = [("existence", "Is there a ring in this image?"), ("count", "Are there two stars?"), ("code_reasoning", "Ok?")]
    documents = [
        {"question_id": f"{category}/{place}.jpg", "image": picture(place), "answer": answer, "category": category}
        | {"question": f"{question} Please answer yes or no."}
        for place, (category, question) in enumerate(asked)
        for answer in ("Yes", "No")
    ]
    right, wrong = ["Yes", "No."] * 3, ["no", "perhaps"] * 3
    prompts = [question + SHORT for _, question in asked for _ in range(2)]
    # Two categories of perception: 200 for each, or 200 for the first and 50 for the second.
    return Made("mme", "test", features, documents, right, wrong, prompts, (400.0, 250.0, 0.0))


def mmmu() -> Made:
    images = [f"image_{place}" for place in range(1, 8)]
    names = "id question options explanation img_type answer topic_difficulty question_type subfield".split()
    features = dict.fromkeys(names, TEXT) | dict.fromkeys(images, Image())
    choices = "['<image 2> is larger', 'they are equal', 'neither']"
    rows = [
        ("validation_Math_1", "Compare <image 1> with the options.", choices, "A", "multiple-choice", 2),
        ("validation_Math_2", "How many shapes are in <image 1>?", "[]", "12", "open", 1),
        ("validation_Art_1", "Who drew <image 1>?", "['Nobody', 'Somebody']", "B", "multiple-choice", 1),
        ("validation_Art_2", "Name the colour of <image 1>.", "[]", "red", "open", 1),
    ]
    blank = dict.fromkeys(images) | dict.fromkeys(["explanation", "img_type", "topic_difficulty", "subfield"], "?")
    documents = [
        blank | {"id": name, "question": question, "options": options, "answer": answer, "question_type": kind}
        | {f"image_{each + 1}": picture(each) for each in range(count)}
        for name, question, options, answer, kind, count in rows
    ]
    direct = "Answer with the option's letter from the given choices directly."
    single = "Answer the question using a single word or phrase."
    prompts = [
        f"{rows[0][1]}\nA. <image 2> is larger\nB. they are equal\nC. neither\n\n{direct}",
        f"{rows[1][1]}\n\n{single}",
        f"{rows[2][1]}\nA. Nobody\nB. Somebody\n\n{direct}",
        f"{rows[3][1]}\n\n{single}",
    ]
    right, wrong = ["A", "12", "(B)", "It is red."], ["C", "13", "A", "blue"]
    return Made(
        "mmmu", "validation", features, documents, right, wrong, prompts, num_pictures=[count for *_, count in rows]
    )


def okvqa() -> Made:
    features = {"question_id": TEXT, "image": Image(), "question": TEXT, "answers": Sequence(TEXT)}
    features |= {"question_type": TEXT, "answer_type": TEXT}
    words = ["race", "pony tail", "two", "ski"]
    documents = [
        {"question_id": str(place), "image": picture(place), "question": f"What is number {place}?", "answers": [word] * 10}
        | {"question_type": "four", "answer_type": "other"}
        for place, word in enumerate(words)
    ]
    insufficient = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    prompts = [document["question"] + insufficient + SHORT for document in documents]
    right = ["Race.", "the pony tail", "2", "ski"]
    return Made("okvqa", "val2014", features, documents, right, ["Unanswerable"] * 4, prompts)


def pope() -> Made:
    names = "id question_id question answer image_source category".split()
    features = dict.fromkeys(names, TEXT) | {"image": Image()}
    documents = [
        {"id": str(place), "question_id": str(place), "question": f"Is there a {word} in the image?", "answer": answer}
        | {"image_source": f"COCO_val2014_{place:012d}", "category": "adversarial", "image": picture(place)}
        for place, (word, answer) in enumerate([("ring", "yes"), ("dog", "no"), ("star", "yes"), ("cat", "no")])
    ]
    prompts = [document["question"] + SHORT for document in documents]
    return Made("pope", "test", features, documents, ["Yes", "no"] * 2, ["no", "Yes"] * 2, prompts)


def scienceqa() -> Made:
    names = "question hint task grade subject topic category skill lecture solution".split()
    features = dict.fromkeys(names, TEXT) | {"image": Image(), "choices": Sequence(TEXT), "answer": Value("int8")}
    blank = dict.fromkeys(names, "")
    documents = [
        blank | {"question": "Which is it?", "hint": hint, "choices": ["this", "that", "other"], "answer": answer}
        | {"image": picture(answer)}
        for answer, hint in enumerate(["", "Use the picture.", "", ""])
        if answer < 3
    ] + [blank | {"question": "And?", "choices": ["x", "y"], "answer": 1, "image": picture(4)}]
    listed = "\nA. this\nB. that\nC. other" + LETTER
    prompts = ["Which is it?" + listed, "Context: Use the picture.\nWhich is it?" + listed, "Which is it?" + listed]
    prompts.append("And?\nA. x\nB. y" + LETTER)
    right, wrong = ["A", "B. that", "C", "B"], ["a", "b. that", "(C)", "y"]
    return Made(
        "scienceqa", "test", features, documents, right, wrong, prompts, configuration="ScienceQA-IMG", num_pictures=[1] * 4
    )


def seedbench(kind: str = "image") -> Made:
    choices = ["choice_a", "choice_b", "choice_c", "choice_d"]
    names = [*choices, "answer", "data_id", "data_type", "question", "question_id"]
    features = dict.fromkeys(names, TEXT) | {"question_type_id": NUMBER, "image": Sequence(Image())}
    features |= {"segment": Sequence(NUMBER)}
    words = ["One", "Two", "Three", "Four"]
    documents = [
        dict(zip(choices, words, strict=True))
        | {"answer": answer, "data_id": f"1454426_{place}", "data_type": data_type, "question_id": str(101669 + place)}
        | {"question": f"How many are in this {data_type}?", "question_type_id": 5, "segment": []}
        | {"image": [picture(place + each) for each in range(1 if data_type == "image" else 8)]}
        for place, (answer, data_type) in enumerate(zip("ABCDAB", ["image", "video"] * 3, strict=True))
    ]
    asked = [document for document in documents if document["data_type"] == kind]
    listed = "\nA. One\nB. Two\nC. Three\nD. Four" + LETTER
    right = [document["answer"] + ". " for document in asked]
    wrong = [document["answer"].lower() for document in asked]
    prompts = [document["question"] + listed for document in asked]
    shown = [len(document["image"]) for document in asked]
    return Made(
        "seedbench", "test", features, documents, right, wrong, prompts, (1.0, 1 / 3, 0.0), num_pictures=shown
    )


def activitynet() -> Made:
    features = dict.fromkeys(["video_name", "question", "question_id", "answer"], TEXT) | {"type": NUMBER}
    rows = [("does the girl wear a hat", "yes"), ("what is the person doing", "skiing"), ("who wins", "nobody")]
    rows.append(("where is it", "indoors"))
    documents = [
        {"video_name": f"1QIUV7WYKX{place % 2}", "question": question, "question_id": f"v_{place}", "answer": answer, "type": 3}
        for place, (question, answer) in enumerate(rows)
    ]
    prompts = [f"{question.capitalize()}? Answer the question using a single word or phrase." for question, _ in rows]
    right = [answer for _, answer in rows]
    names = ["v_1QIUV7WYKX0", "v_1QIUV7WYKX1"]
    return Made("activitynet", "test", features, documents, right, ["wrong"] * 4, prompts, (100.0, 50.0, 0.0), clips=names)


def videochatgpt() -> Made:
    features = dict.fromkeys(["video_name", "question", "answer"], TEXT)
    documents = [
        {"video_name": f"v_p1QGn0IzfW{place}", "question": f"What happens in part {place}?", "answer": f"Step {place}."}
        for place in range(4)
    ]
    return Made(
        "videochatgpt", "test", features, documents, [each["answer"] for each in documents], ["wrong"] * 4,
        [each["question"] for each in documents], (5.0, 2.5, 0.0), "Temporal", [each["video_name"] for each in documents],
    )  # fmt: skip


def nextqa() -> Made:
    features = {"video": NUMBER, "frame_count": NUMBER, "width": NUMBER, "height": NUMBER, "question": TEXT, "answer": TEXT}
    features |= {"qid": NUMBER, "type": TEXT, "additional_ref_answer": TEXT}
    rows = [
        ("what is the animal", "dog", "DO", None),
        ("how many dogs are there", "two", "DC", None),
        ("why did the cat run", "to catch the dog", "CW", "chase dog"),
        ("what does the dog do", "run", "TN", None),
    ]
    documents = [
        {"video": 4010069381 + place % 2, "frame_count": 8, "width": 64, "height": 64, "question": question}
        | {"answer": answer, "qid": place, "type": kind, "additional_ref_answer": more}
        for place, (question, answer, kind, more) in enumerate(rows)
    ]
    prompts = [f"{question}\nAnswer a question using a short phrase or sentence." for question, *_ in rows]
    right, wrong = ["a dog", "two", "Chase the dog", "it is running"], ["xyzzy", "three", "xyzzy", "xyzzy"]
    names = ["4010069381", "4010069382"]
    return Made("nextqa", "test", features, documents, right, wrong, prompts, (100.0, 50.0, 0.0), "OE", names)


def egoschema(subset: bool = False) -> Made:
    features = dict.fromkeys(["question_idx", "question", "video_idx", "answer"], TEXT) | {"option": Sequence(TEXT)}
    options = [f"{letter}. C does thing {place}." for place, letter in enumerate("ABCDE")]
    documents = [
        {"question_idx": str(place), "question": f"What is C doing in {place}?", "video_idx": f"0074f737-{place}"}
        | {"option": options, "answer": str(place) if subset else "None"}
        for place in range(4)
    ]
    prompts = ["\n".join([each["question"], *options]) + LETTER for each in documents]
    right, wrong = ["A", "B.", "(C)", "D. C does thing 3."], ["E", "E.", "(E)", "E"]
    names = [each["video_idx"] for each in documents]
    scores = (1.0, 0.5, 0.0) if subset else (100.0, 50.0, 0.0)
    return Made(
        "egoschema", "test", features, documents, right, wrong, prompts, scores, "Subset" if subset else "GENERATION", names
    )


MADE: dict[str, Made] = {
    **{each.key: each for each in (coco2017(), flickr30k(), gqa(), mmbench(), mme(), mmmu(), nocaps(), okvqa(), pope())},
    **{each.key: each for each in (scienceqa(), seedbench(), activitynet(), videochatgpt(), nextqa(), egoschema())},
    "seedbench_video": seedbench("video"),
    "egoschema_subset": egoschema(subset=True),
}


def write_all(data: Path) -> Path:
    """Write every data set into the folder."""
    for key, made in MADE.items():
        if key != "seedbench_video":
            made.write(data)
    write_gqa_pictures(data)
    return data
