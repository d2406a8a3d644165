import pytest
from scripted_arms import CLASSIFY, Wrong, classify_data, compared, messages

from tailorbird.data.task import Data
from tailorbird.evaluation.soundness import independent, one_completion, sound
from tailorbird.evaluation.verdict import Verdict
from tailorbird.records import Example


def one_label(count):
    """Test messages that all expect the label of message 100."""
    return Data(CLASSIFY, messages(0, 40), messages(40, 100), messages(100, 100 + 4 * count)[::4])


@pytest.mark.parametrize("wrong", [(), range(100, 300)])
def test_a_test_of_one_completion_gives_no_winner_and_no_tie(wrong):
    found = compared(one_label(50), good=Wrong(), other=Wrong(*wrong))
    verdict = found.verdict
    assert verdict.kind == "undecided"
    assert verdict.arm == "good"
    assert verdict.sentence.startswith(
        "Undecided: all 50 test examples expect 'card_lost', so this test cannot"
    )
    assert verdict.headline.endswith("Until then use good.")
    assert verdict.more_examples_needed is None


def test_the_notes_of_a_verdict_that_is_held_back_stay():
    found = compared(one_label(50), good=Wrong(), floor=Wrong())
    assert "baseline" in found.verdict.sentence[len(found.verdict.headline) :]


@pytest.mark.parametrize(("count", "kind"), [(9, "undecided"), (10, "winner")])
def test_too_few_test_examples_call_no_winner(count, kind):
    found = compared(classify_data(count), good=Wrong(), poor=Wrong(*range(40, 200)))
    assert found.verdict.kind == kind
    assert found.verdict.arm == "good"
    if kind == "undecided":
        assert found.verdict.sentence == (
            "Undecided: good did best, but 9 test examples to test on are too few to call it the winner. Add at least "
            "1 more. Until then use good."
        )
        assert found.verdict.more_examples_needed == 1


def test_examples_about_one_document_count_once():
    test = tuple(Example.pair(f"message {n}", "refund", document=f"{n % 3}.md") for n in range(30))
    assert independent(test) == 3
    assert independent(messages(0, 5)) == 5
    verdict = Verdict("winner", "a", "Use a.", differences={"b": None}, headline="Use a.")
    mixed = (*test, Example.pair("message 99", "delivery", document="0.md"))
    assert sound(verdict, mixed).headline.startswith(
        "Undecided: a did best, but 3 documents to test on are too few"
    )


def test_what_says_nothing_already_is_left_as_it_is():
    alone = Verdict("undecided", "a", "Only a was measured.", headline="Only a was measured.")
    assert sound(alone, one_label(50).test) is alone
    nothing = Verdict("undecided", None, "No arm.")
    assert sound(nothing, ()) is nothing


def test_one_example_alone_is_not_of_one_completion():
    assert one_completion(messages(0, 1)) is None
    assert one_completion(messages(0, 2)) is None
    assert one_completion(messages(0, 1) * 2) == "card_lost"
