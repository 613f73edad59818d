"""The data sets of choices, and of yes or no, in the hub's schemas."""

from datasets import Image, Sequence, Value

from tests.harness.data_making import LETTER, NUMBER, SHORT, TEXT, Made, picture


def mmbench() -> Made:
    names = ["question", "hint", "answer", "A", "B", "C", "D", "category", "source", "L2-category", "comment", "split"]
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
    asked = [("existence", "Is there a ring?"), ("count", "Are there two stars?"), ("code_reasoning", "Ok?")]
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


MMMU_ROWS = [
    (
        "Math_1",
        "Compare <image 1> with these.",
        "['<image 2> is larger', 'equal', 'neither']",
        "A",
        "multiple-choice",
        2,
    ),
    ("Math_2", "How many shapes are in <image 1>?", "[]", "12", "open", 1),
    ("Art_1", "Who drew <image 1>?", "['Nobody', 'Somebody']", "B", "multiple-choice", 1),
    ("Art_2", "Name the colour of <image 1>.", "[]", "red", "open", 1),
]
DIRECT = "Answer with the option's letter from the given choices directly."
SINGLE = "Answer the question using a single word or phrase."


def mmmu() -> Made:
    asked = ["id", "question", "options", "answer", "question_type"]
    blank = dict.fromkeys(["explanation", "img_type", "topic_difficulty", "subfield"], "?")
    images = [f"image_{place}" for place in range(1, 8)]
    features = dict.fromkeys([*asked, *blank], TEXT) | dict.fromkeys(images, Image())
    documents = [
        blank
        | dict.fromkeys(images)
        | dict(zip(asked, (f"validation_{row[0]}", *row[1:-1]), strict=True))
        | {image: picture(place) for place, image in enumerate(images[: row[-1]])}
        for row in MMMU_ROWS
    ]
    questions = [row[1] for row in MMMU_ROWS]
    prompts = [
        f"{questions[0]}\nA. <image 2> is larger\nB. equal\nC. neither\n\n{DIRECT}",
        f"{questions[1]}\n\n{SINGLE}",
        f"{questions[2]}\nA. Nobody\nB. Somebody\n\n{DIRECT}",
        f"{questions[3]}\n\n{SINGLE}",
    ]
    right, wrong = ["A", "12", "(B)", "It is red."], ["C", "13", "A", "blue"]
    shown = [row[-1] for row in MMMU_ROWS]
    return Made("mmmu", "validation", features, documents, right, wrong, prompts, num_pictures=shown)


def okvqa() -> Made:
    features = {"question_id": TEXT, "image": Image(), "question": TEXT, "answers": Sequence(TEXT)}
    features |= {"question_type": TEXT, "answer_type": TEXT}
    words = ["race", "pony tail", "two", "ski"]
    documents = [
        {"question_id": str(place), "image": picture(place), "question": f"What is number {place}?"}
        | {"answers": [word] * 10, "question_type": "four", "answer_type": "other"}
        for place, word in enumerate(words)
    ]
    insufficient = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    prompts = [document["question"] + insufficient + SHORT for document in documents]
    right = ["Race.", "the pony tail", "2", "ski"]
    return Made("okvqa", "val2014", features, documents, right, ["Unanswerable"] * 4, prompts)


def pope() -> Made:
    names = ["id", "question_id", "question", "answer", "image_source", "category"]
    features = dict.fromkeys(names, TEXT) | {"image": Image()}
    documents = [
        {"id": str(place), "question_id": str(place), "question": f"Is there a {word} in the image?", "answer": answer}
        | {"image_source": f"COCO_val2014_{place:012d}", "category": "adversarial", "image": picture(place)}
        for place, (word, answer) in enumerate([("ring", "yes"), ("dog", "no"), ("star", "yes"), ("cat", "no")])
    ]
    prompts = [document["question"] + SHORT for document in documents]
    return Made("pope", "test", features, documents, ["Yes", "no"] * 2, ["no", "Yes"] * 2, prompts)


def scienceqa() -> Made:
    names = ["question", "hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution"]
    features = dict.fromkeys(names, TEXT) | {"image": Image(), "choices": Sequence(TEXT), "answer": Value("int8")}
    blank = dict.fromkeys(names, "")
    documents = [
        blank
        | {"question": "Which is it?", "hint": hint, "choices": ["this", "that", "other"], "answer": answer}
        | {"image": picture(answer)}
        for answer, hint in enumerate(["", "Use the picture.", "", ""])
        if answer < 3
    ] + [blank | {"question": "And?", "choices": ["x", "y"], "answer": 1, "image": picture(4)}]
    listed = "\nA. this\nB. that\nC. other" + LETTER
    prompts = ["Which is it?" + listed, "Context: Use the picture.\nWhich is it?" + listed, "Which is it?" + listed]
    prompts.append("And?\nA. x\nB. y" + LETTER)
    right, wrong = ["A", "B. that", "C", "B"], ["a", "b. that", "(C)", "y"]
    return Made(
        "scienceqa",
        "test",
        features,
        documents,
        right,
        wrong,
        prompts,
        configuration="ScienceQA-IMG",
        num_pictures=[1] * 4,
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
    return Made("seedbench", "test", features, documents, right, wrong, prompts, (1.0, 1 / 3, 0.0), num_pictures=shown)
