import random

import pytest

from tailorbird.evaluation.verdict import Contender, decide, round_up


def arm(name, rate, *, n=200, compute=100.0, dev=None, floor=False, seed=None):
    """An arm right on exactly `rate` of n examples, at places drawn from `seed`."""
    test = [1.0] * round(rate * n) + [0.0] * (n - round(rate * n))
    random.Random(name if seed is None else seed).shuffle(test)
    dev_rate = rate if dev is None else dev
    return Contender(
        name, [1.0] * round(dev_rate * 100) + [0.0] * (100 - round(dev_rate * 100)), test, compute, floor
    )


def test_an_arm_better_than_every_other_wins():
    verdict = decide([arm("base", 0.4), arm("fine_tune", 0.9), arm("few_shot", 0.6)])
    assert (verdict.kind, verdict.arm, verdict.more_examples_needed) == ("winner", "fine_tune", None)
    assert verdict.sentence == (
        "Use fine_tune: right on 180 of 200 held-out messages (90 %, between 85 and 93 %), clearly better "
        "than the second best (few_shot, 60 %)."
    )
    assert set(verdict.differences) == {"base", "few_shot"}
    assert verdict.differences["base"].mean == pytest.approx(-0.5)
    assert verdict.differences["base"].high < 0


def test_arms_shown_to_be_as_good_tie_and_the_cheapest_is_used():
    # 3,000 examples on which the two disagree on 1 %.
    dear = Contender("dear", [1.0, 1.0], [1.0] * 2400 + [0.0] * 600, 900.0)
    cheap = Contender("cheap", [1.0, 0.0], [0.0] * 15 + [1.0] * 2400 + [0.0] * 585, 10.0)
    verdict = decide([dear, cheap, arm("base", 0.1, n=3000)])
    assert (verdict.kind, verdict.arm, verdict.candidate) == ("tie", "cheap", "dear")
    assert "dear is as good, within 3 points, and cheap is the cheapest to run." in verdict.sentence


def test_of_several_floors_none_is_called_the_cheapest_since_their_costs_are_not_told_apart():
    two = [arm("a", 0.80, n=60, compute=0.0, floor=True), arm("b", 0.74, n=60, compute=0.0, floor=True)]
    assert decide(two).sentence.endswith(
        "Until then use a, a simple baseline that costs next to nothing to run."
    )
    dear = Contender("dear", [1.0, 1.0], [1.0] * 2400 + [0.0] * 600, 0.0, floor=True)
    cheap = Contender("cheap", [1.0, 1.0], [0.0] * 15 + [1.0] * 2400 + [0.0] * 585, 0.0, floor=True)
    tie = decide([dear, cheap, arm("base", 0.1, n=3000)])
    assert tie.kind == "tie"
    assert f"and {tie.arm} costs next to nothing to run." in tie.sentence


def test_few_examples_never_make_a_tie_even_if_all_answers_agree():
    verdict = decide([arm("a", 1.0, n=30), arm("b", 1.0, n=30)])
    assert verdict.kind == "undecided"
    assert verdict.more_examples_needed == 95


def test_too_few_examples_leave_it_undecided_and_say_how_many_more_would_tell():
    verdict = decide([arm("a", 0.80, n=60, compute=5.0), arm("b", 0.74, n=60, compute=1.0)])
    assert (verdict.kind, verdict.arm, verdict.candidate) == ("undecided", "b", "a")
    assert 100 < verdict.more_examples_needed < 2000
    assert f"About {verdict.more_examples_needed} more test examples would tell" in verdict.sentence
    assert "Until then use b, the cheapest of those still in question." in verdict.sentence
    assert "with 60" not in verdict.sentence
    assert "of 60 held-out messages" in verdict.sentence


def test_the_candidate_is_chosen_on_dev_not_on_test():
    verdict = decide([arm("lucky", 0.80, dev=0.5), arm("chosen", 0.79, dev=0.9)])
    assert verdict.candidate == "chosen"


def test_equals_on_dev_are_ordered_by_price_then_by_name():
    def candidate(*arms):
        return decide(list(arms)).candidate

    assert candidate(arm("dear", 0.8, compute=9.0), arm("cheap", 0.8, compute=1.0)) == "cheap"
    assert candidate(arm("b", 0.8), arm("a", 0.8)) == "a"
    assert candidate(arm("unsized", 0.8, compute=None), arm("sized", 0.8, compute=1e15)) == "sized"


def test_an_arm_that_beats_the_candidate_on_test_is_named():
    verdict = decide([arm("chosen", 0.5, dev=0.9), arm("better", 0.9, dev=0.5)])
    assert (verdict.kind, verdict.arm, verdict.more_examples_needed) == ("undecided", "better", 200)
    assert (
        "chosen looked best when choosing, but on the held-out messages better was clearly better"
        in verdict.sentence
    )


def test_p_values_are_adjusted_for_the_number_of_arms():
    pair = [arm("a", 0.9), arm("b", 0.82)]
    alone = decide(pair).differences["b"]
    among = decide([*pair, *(arm(f"c{i}", 0.815) for i in range(5))]).differences["b"]
    assert alone.p_adjusted == alone.p
    assert among.p == alone.p
    assert among.p_adjusted > alone.p_adjusted


def test_a_customization_that_does_not_beat_a_floor_is_said_so():
    floor = arm("tfidf_linear", 0.9, compute=0.0, floor=True)
    assert (
        "No language model did better than tfidf_linear, a simple baseline."
        in decide([floor, arm("few_shot", 0.5), arm("base", 0.3)]).sentence
    )
    winner = decide([arm("tfidf_linear", 0.5, floor=True), arm("fine_tune", 0.9), arm("base", 0.3)])
    assert winner.sentence.endswith("No better than the simple baseline tfidf_linear: base.")
    close = decide([arm("tfidf_linear", 0.79, floor=True, compute=9.0), arm("fine_tune", 0.8, compute=1.0)])
    assert (
        "Note that fine_tune is not clearly better than the simple baseline tfidf_linear." in close.sentence
    )


def test_arms_that_did_not_run_are_named():
    verdict = decide([arm("a", 0.9), arm("b", 0.2)], not_judged={"fine_tune": "stopped", "remote": "failed"})
    assert verdict.kind == "winner"
    assert verdict.sentence.endswith(
        "This speaks only of the arms that ran, not of fine_tune (stopped), remote (failed)."
    )


def test_one_arm_or_none_decides_nothing():
    alone = decide([arm("base", 0.5)], not_judged={"fine_tune": "failed"})
    assert (alone.kind, alone.arm) == ("undecided", "base")
    assert "only base was measured (50 % over 200 held-out messages)" in alone.sentence
    none = decide([])
    assert (none.kind, none.arm, none.sentence) == ("undecided", None, "No arm has been measured.")


def test_partial_scores_are_told_as_averages():
    good = Contender("good", [1.0], [0.9, 0.8, 1.0, 0.7] * 30, 1.0)
    bad = Contender("bad", [0.0], [0.2, 0.1, 0.0, 0.3] * 30, 1.0)
    verdict = decide([good, bad], things="questions")
    assert verdict.kind == "winner"
    assert (
        "Use good: 85 % right on average over 120 held-out questions (between 83 and 87 %)"
        in verdict.sentence
    )


def test_examples_of_one_document_make_a_verdict_harder():
    test = {"a": [1.0] * 30 + [0.5] * 30, "b": [0.4] * 30 + [0.5] * 30}
    arms = [Contender(name, [float(name == "a")], scores, 1.0) for name, scores in test.items()]
    assert decide(arms).kind == "winner"
    assert decide(arms, groups=[i // 30 for i in range(60)]).kind == "undecided"


@pytest.mark.parametrize(
    ("count", "rounded"), [(1, 1), (97, 97), (101, 110), (620, 620), (3921, 4000), (10, 10)]
)
def test_numbers_of_examples_are_rounded_up_to_two_digits(count, rounded):
    assert round_up(count) == rounded
