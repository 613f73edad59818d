"""NLTK's corpora in miniature, in their real formats: a WordNet of a few animals, a tagger and a sentence splitter."""

from pathlib import Path

# Each synset: its words, and its hypernym's first word.
NOUNS = [
    (["entity"], None),
    (["animal", "beast"], "entity"),
    (["dog"], "animal"),
    (["cat"], "animal"),
    (["puppy"], "dog"),
    (["two"], "entity"),
]
VERBS = [(["act"], None), (["run"], "act"), (["chase"], "act"), (["catch"], "chase")]


def write_language_data(folder: Path) -> Path:
    """Write all three below a folder for NLTK_DATA."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write_wordnet(folder / "corpora" / "wordnet")
    _write_tagger(folder / "taggers" / "averaged_perceptron_tagger_eng")
    _write_splitter(folder / "tokenizers" / "punkt_tab" / "english")
    return folder


def _write_wordnet(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "lexnames").write_text("00\tadj.all\t3\n01\tadj.pert\t3\n02\tadv.all\t4\n03\tnoun.Tops\t1\n")
    for name in ("cntlist.rev", "index.sense", "adj.exc", "adv.exc", "noun.exc", "index.adj", "index.adv", "data.adv"):
        (folder / name).write_text("")
    (folder / "verb.exc").write_text("ran run\ncaught catch\n")
    (folder / "data.adj").write_text("  1 WordNet 3.0 Copyright in miniature\n")
    _write_part(folder, "noun", "n", NOUNS)
    _write_part(folder, "verb", "v", VERBS)


def _write_part(folder: Path, part: str, letter: str, synsets: list[tuple[list[str], str | None]]) -> None:
    offsets: dict[str, int] = {}
    data = ""
    for words, parent in synsets:
        offsets |= dict.fromkeys(words, len(data))
        listed = " ".join(f"{word} 0" for word in words)
        pointers = "000" if parent is None else f"001 @ {offsets[parent]:08d} {letter} 0000"
        frames = " 00" if letter == "v" else ""
        data += f"{offsets[words[0]]:08d} 03 {letter} {len(words):02x} {listed} {pointers}{frames} | a gloss  \n"
    (folder / f"data.{part}").write_text(data)
    lines = [f"{word} {letter} 1 1 @ 1 0 {offset:08d}  \n" for word, offset in sorted(offsets.items())]
    (folder / f"index.{part}").write_text("".join(lines))


def _write_tagger(folder: Path) -> None:
    import json

    from nltk.tag.perceptron import PerceptronTagger

    folder.mkdir(parents=True)
    tagger = PerceptronTagger(load=False)
    sentence = [("the", "DT"), ("dog", "NN"), ("runs", "VBZ"), ("it", "PRP"), ("is", "VBZ"), ("running", "VBG")]
    tagger.train([sentence, [("to", "TO"), ("catch", "VB"), ("a", "DT"), ("cat", "NN")]] * 10)
    for value, name in zip(tagger.encode_json_obj(), tagger.param_files("eng"), strict=True):
        (folder / name).write_text(json.dumps(value))


def _write_splitter(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (folder / name).write_text("")
