"""The data sets of clips, in the hub's schemas."""

from datasets import Sequence

from tests.harness.data_making import LETTER, NUMBER, TEXT, Made


def activitynet() -> Made:
    features = dict.fromkeys(["video_name", "question", "question_id", "answer"], TEXT) | {"type": NUMBER}
    rows = [("does the girl wear a hat", "yes"), ("what is the person doing", "skiing"), ("who wins", "nobody")]
    rows.append(("where is it", "indoors"))
    documents = [
        {"video_name": f"1QIUV7WYKX{place % 2}", "question": question, "question_id": f"v_{place}"}
        | {"answer": answer, "type": 3}
        for place, (question, answer) in enumerate(rows)
    ]
    prompts = [f"{question.capitalize()}? Answer the question using a single word or phrase." for question, _ in rows]
    right = [answer for _, answer in rows]
    names = ["v_1QIUV7WYKX0", "v_1QIUV7WYKX1"]
    return Made(
        "activitynet", "test", features, documents, right, ["wrong"] * 4, prompts, (100.0, 50.0, 0.0), clips=names
    )


def videochatgpt() -> Made:
    features = dict.fromkeys(["video_name", "question", "answer"], TEXT)
    documents = [
        {"video_name": f"v_p1QGn0IzfW{place}", "question": f"What happens in part {place}?", "answer": f"Step {place}."}
        for place in range(4)
    ]
    right, prompts = ([each[name] for each in documents] for name in ("answer", "question"))
    names, scores = [each["video_name"] for each in documents], (5.0, 2.5, 0.0)
    return Made("videochatgpt", "test", features, documents, right, ["wrong"] * 4, prompts, scores, "Temporal", names)


def nextqa() -> Made:
    features = {
        "video": NUMBER,
        "frame_count": NUMBER,
        "width": NUMBER,
        "height": NUMBER,
        "question": TEXT,
        "answer": TEXT,
    }
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
        "egoschema",
        "test",
        features,
        documents,
        right,
        wrong,
        prompts,
        scores,
        "Subset" if subset else "GENERATION",
        names,
    )
