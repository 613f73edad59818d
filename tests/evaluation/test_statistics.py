"""Scores, intervals and paired tests: small cases by hand, scipy as reference, and what they promise in simulation."""

import time
from typing import Any

import numpy as np
import pytest

from divprune.evaluation.statistics import compare_scores, interval, mcnemar, overall_share_kept, score

Marks = list[dict[str, Any]]


def means(scores: Any) -> Marks:
    return [{"doc_id": place, "said": "", "score": float(value)} for place, value in enumerate(scores)]


def yes_no(pairs: Any) -> Marks:
    return [
        {"doc_id": place, "score": float(said == meant), "said_yes": bool(said), "is_yes": bool(meant)}
        for place, (said, meant) in enumerate(pairs)
    ]


def mme(*pictures: tuple[str, float, float]) -> Marks:
    return [
        {"doc_id": 2 * place + number, "score": right, "category": category, "question_id": f"{place}.jpg"}
        for place, (category, *both) in enumerate(pictures)
        for number, right in enumerate(both)
    ]


def test_a_mean_by_hand() -> None:
    assert score(means([1, 0, 1, 1]), "mean") == 0.75
    assert score(means([0.5, 1.5]), "mean") == 1.0


def test_f1_by_hand() -> None:
    # Two true positives, one false positive, one missed, one true negative: F1 = 4 / 6.
    assert score(yes_no([(1, 1), (1, 1), (1, 0), (0, 1), (0, 0)]), "f1") == pytest.approx(4 / 6)
    assert score(yes_no([(0, 0)]), "f1") == 0.0


def test_mme_by_hand() -> None:
    sample_scores = mme(
        ("color", 1, 1), ("color", 1, 0), ("OCR", 0, 0), ("OCR", 1, 1), ("OCR", 1, 1), ("code_reasoning", 1, 1)
    )
    # color: accuracy 3/4, both right 1/2; OCR: 4/6 and 2/3; cognition does not count.
    assert score(sample_scores, "mme") == pytest.approx(100 * (0.75 + 0.5) + 100 * (4 / 6 + 2 / 3))


def test_mme_leaves_out_pictures_with_one_question() -> None:
    assert score(mme(("color", 1, 1), ("color", 1, 0))[:3], "mme") == 200
    with pytest.raises(ValueError, match="both questions about an image"):
        score(mme(("color", 1, 1))[:1], "mme")


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 21), (700, 600), (9000, 8800)])
def test_mcnemar_is_scipys_binomial_test(worse: int, better: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert mcnemar(worse, better) == pytest.approx(expected, rel=1e-9)


def test_right_or_wrong_is_tested_by_mcnemar() -> None:
    # 4 documents lost, 1 won: p = 2 * (1 + 5) / 32.
    found = compare_scores(means([0, 0, 0, 0, 1, 1, 0]), means([1, 1, 1, 1, 0, 1, 0]), "mean")
    assert found.test == "exact McNemar"
    assert found.p_value == pytest.approx(2 * 6 / 32)
    assert found.difference.value == pytest.approx(-3 / 7)
    assert found.share_kept is None or found.share_kept.value == pytest.approx(2 / 5)


def test_percent_is_tested_like_right_or_wrong() -> None:
    ours, theirs = [0, 0, 1, 1, 0], [1, 1, 1, 0, 1]
    alike = compare_scores(means(ours), means(theirs), "mean")
    percent = compare_scores(means(100 * np.array(ours)), means(100 * np.array(theirs)), "mean")
    assert (percent.test, percent.p_value) == (alike.test, alike.p_value)
    assert percent.difference.value == pytest.approx(100 * alike.difference.value)


def test_documents_without_a_score_do_not_count() -> None:
    sample_scores = [*means([1, 0]), {"doc_id": 7, "said": "", "score": None}]
    assert score(sample_scores, "mean") == 0.5
    assert compare_scores(sample_scores, sample_scores, "mean").num_documents == 2


def test_a_permutation_test_by_hand() -> None:
    # All four differ by -1 and +1: of 16 swaps, 2 give a difference as large.
    found = compare_scores(means([0.5, 1.5, 2.5, 3.5]), means([1.5, 2.5, 3.5, 4.5]), "mean")
    assert found.test == "paired permutation"
    assert found.p_value == pytest.approx(2 / 16, abs=0.02)


def test_permutations_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(5)
    ours, theirs = random.normal(1.0, 0.5, 40), random.normal(1.2, 0.5, 40)
    expected = stats.permutation_test(
        (ours, theirs), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=9999, random_state=1
    )
    assert compare_scores(means(ours), means(theirs), "mean").p_value == pytest.approx(expected.pvalue, abs=0.02)


def test_equal_answers_are_no_difference() -> None:
    for sample_scores, statistic in (
        (means([0, 1, 1]), "mean"),
        (yes_no([(1, 1), (1, 0)]), "f1"),
        (mme(("OCR", 1, 0)), "mme"),
    ):
        found = compare_scores(sample_scores, sample_scores, statistic)
        assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
        assert found.p_value == 1
        assert found.num_documents == len(sample_scores)


def test_only_documents_that_both_have_are_compared() -> None:
    found = compare_scores(means([1, 0, 1, 1, 1]), means([1, 1, 0]), "mean")
    assert found.num_documents == 3
    assert found.difference.value == 0
    with pytest.raises(ValueError, match="share documents"):
        compare_scores(means([1]), [{"doc_id": "other", "score": 1.0}], "mean")


def test_marks_that_are_missing_or_doubled_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one document"):
        score([], "mean")
    with pytest.raises(ValueError, match="got doc_id 0 twice"):
        interval([*means([1]), *means([0])], "mean")


def test_an_interval_is_that_of_a_proportion() -> None:
    found = interval(means([1, 0] * 200), "mean")
    half = 1.96 * np.sqrt(0.25 / 400)
    assert found.value == 0.5
    assert (found.low, found.high) == (pytest.approx(0.5 - half, abs=0.005), pytest.approx(0.5 + half, abs=0.005))
    assert found == interval(means([1, 0] * 200), "mean")


def test_paired_intervals_are_narrower_than_two_alone() -> None:
    random = np.random.default_rng(0)
    theirs = (random.random(500) < 0.6).astype(float)
    ours = np.where(random.random(500) < 0.05, 1 - theirs, theirs)
    found = compare_scores(means(ours), means(theirs), "mean").difference
    alone = interval(means(ours), "mean")
    assert found.high - found.low < 0.6 * (alone.high - alone.low)


@pytest.mark.parametrize("statistic", ["mean", "f1", "mme"])
def test_intervals_hold_the_truth_as_often_as_they_say(statistic: Any) -> None:
    truth = {"mean": 0.7, "f1": 2 * 0.35 / (0.35 + 0.15 + 0.5), "mme": 2 * 100 * (0.7 + 0.49)}[statistic]
    held = sum(low <= truth <= high for low, high in (simulated(statistic, seed) for seed in range(200)))
    assert 0.90 <= held / 200 <= 0.99


def simulated(statistic: Any, seed: int) -> tuple[float, float]:
    """120 answers, right with probability 0.7."""
    random = np.random.default_rng(seed)
    right = random.random(120) < 0.7
    meant = random.random(120) < 0.5
    sample_scores = {
        "mean": lambda: means(right),
        "f1": lambda: yes_no(zip(right == meant, meant, strict=True)),
        "mme": lambda: mme(*(("OCR" if n < 30 else "color", *map(float, right[2 * n : 2 * n + 2])) for n in range(60))),
    }[statistic]()
    found = interval(sample_scores, statistic)
    return found.low, found.high


@pytest.mark.parametrize("kind", ["binary", "real", "f1"])
def test_without_a_difference_p_values_are_uniform(kind: str) -> None:
    values = np.array([null_p_value(kind, seed) for seed in range(150)])
    for level in (0.1, 0.3, 0.5):
        # A discrete test may only be too careful.
        assert (values <= level).mean() <= level + 0.08
        if kind != "binary":
            assert (values <= level).mean() >= level - 0.1


def null_p_value(kind: str, seed: int) -> float:
    random = np.random.default_rng(1000 + seed)
    hard = random.random(60)
    if kind == "real":
        return compare_scores(means(hard + random.random(60)), means(hard + random.random(60)), "mean").p_value
    ours, theirs = random.random(60) < hard, random.random(60) < hard
    if kind == "binary":
        return compare_scores(means(ours), means(theirs), "mean").p_value
    meant = random.random(60) < 0.5
    pairs = [yes_no(zip(right == meant, meant, strict=True)) for right in (ours, theirs)]
    return compare_scores(*pairs, "f1").p_value


def test_the_overall_share_is_the_mean_of_the_tasks() -> None:
    first = (means([1, 0, 1, 0] * 50), means([1, 1, 1, 0] * 50), "mean")
    second = (means([0.9] * 100), means([1.0] * 100), "mean")
    found = overall_share_kept([first, second])
    assert found.value == pytest.approx((2 / 3 + 0.9) / 2)
    assert found.low < found.value < found.high
    assert overall_share_kept([]) is None
    assert overall_share_kept([(means([1, 1]), means([0, 0]), "mean")]) is None


@pytest.mark.parametrize("statistic", ["mean", "f1"])
def test_many_samples_take_little_time(statistic: Any) -> None:
    random = np.random.default_rng(0)
    meant = random.random(30_000) < 0.5
    ours, theirs = (yes_no(zip(random.random(30_000) < 0.5, meant, strict=True)) for _ in range(2))
    started = time.process_time()
    interval(ours, statistic)
    assert time.process_time() - started < 2
    started = time.process_time()
    compare_scores(ours, theirs, statistic)
    assert time.process_time() - started < 6
