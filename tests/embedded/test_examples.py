"""The bundled scenes and what is asked about them."""

from divprune.embedded.examples import bundled_scenes


def test_scenes_ask_different_questions_with_known_answers() -> None:
    examples = bundled_scenes()
    assert len(examples) >= 12
    assert len({example.media[0].name for example in examples}) == 4
    assert {"yes", "no"} < {example.expected for example in examples}


def test_own_prompts_are_asked_about_every_scene() -> None:
    examples = bundled_scenes(["How many objects are there?"])
    assert [example.expected for example in examples] == [None] * 4
