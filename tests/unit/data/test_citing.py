from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.data import citing
from tailorbird.data.citing import support_for, support_of
from tailorbird.data.passages import split_document
from tailorbird.records import Completion, Document, Message, Passage, Request, uncited

TEXT = """# Vans

The Dunnock is electric. It holds 12 bikes, and costs 3,150 euros a year.

| van | seats |
|---|---|
| Wren | 3 |
| Dunnock | 2 |
"""
DOCUMENT = Document("vans.md", TEXT, "Vans", "v7")
[VANS] = split_document(DOCUMENT)
HOURS = Passage("h", "hours.md", "We open at 9. On Sundays we are closed.", "Hours", start=40, version="v2")
QUESTION = "Which van is electric?"


def cited(answer):
    return citing.cited(answer, support_for(answer))


def completion(text, *evidence, **rest):
    return Completion(text, asked=Request((Message("user", QUESTION),), evidence=evidence), **rest)


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("Dunnock", "The Dunnock is electric."),
        ("It is the dunnock!", "The Dunnock is electric."),
        ("It costs 3150 euros.", "It holds 12 bikes, and costs 3,150 euros a year."),
        ("It has 2 seats.", "| Dunnock | 2 |"),
        ("Closed on Sunday", "On Sundays we are closed."),
    ],
)
def test_an_answer_quotes_the_statement_that_holds_its_words(answer, quote):
    found = cited(completion(answer, VANS, HOURS))
    [citation] = found.citations
    assert citation.quote == quote
    assert found.support > 0.5
    passage = [VANS, HOURS][citation.number - 1]
    assert (citation.passage, citation.document, citation.version) == (
        passage.id,
        passage.document,
        passage.version,
    )
    assert passage.text[citation.start - passage.start : citation.end - passage.start] == quote


def test_offsets_are_those_of_the_document():
    [citation] = cited(completion("Dunnock", HOURS, VANS)).citations
    assert citation.number == 2
    assert TEXT[citation.start : citation.end] == citation.quote
    assert citation.headings == ("Vans",)


@pytest.mark.parametrize("answer", ["10 days", "Robin", "The van is electric.", "!?", "..."])
def test_what_the_evidence_does_not_hold_is_not_cited(answer):
    found = cited(completion(answer, VANS))
    assert not any(c.support < 0.5 for c in found.citations)
    assert all("Robin" not in c.quote and "10" not in c.quote for c in found.citations)
    assert answer == "The van is electric." or found.citations == ()


def test_every_sentence_has_its_own_citation():
    found = cited(completion("It is the Dunnock. We open at 9. Robins sing at dawn.", VANS, HOURS))
    assert [c.number for c in found.citations] == [1, 2]
    assert found.cited_text == "It is the Dunnock. [1] We open at 9. [2] Robins sing at dawn."
    assert 0.3 < found.support < 0.8


def test_a_citation_of_the_models_own_stands_where_the_passage_says_so():
    two = replace(HOURS, id="other", document="more.md")
    assert [c.number for c in cited(completion("We open at 9 [2].", HOURS, two)).citations] == [2]
    assert [c.number for c in cited(completion("We open at 9 [1, 2].", HOURS, two)).citations] == [1, 2]
    unsaid = cited(completion("We open at 9 [2].", HOURS, VANS))
    assert [c.number for c in unsaid.citations] == [1]
    assert unsaid.cited_text == "We open at 9. [1]"
    absent = cited(completion("We open at 9 [7].", HOURS))
    assert [c.number for c in absent.citations] == [1]


def test_a_wrong_citation_of_the_models_own_gives_way_to_the_right_one():
    lamp = Passage("l", "lamps.md", "The lamp is blue.")
    frames = Passage("f", "frames.md", "Frames carry a warranty of six years.")
    found = cited(completion("The warranty is six years [1].", lamp, frames))
    assert [c.number for c in found.citations] == [2]
    assert found.cited_text == "The warranty is six years. [2]"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("It costs £12.00.", "A lamp costs £12."),
        ("It opens at 9:00.", "The shop opens at 9 am."),
        ("According to passage 1, it is unlocked first.", "The frame is unlocked first."),
    ],
)
def test_a_number_written_otherwise_is_not_invented(answer, text):
    assert support_of(answer, "What then?", [Passage("p", "p.md", text)]).numbers == 1.0


def test_marks_stand_behind_what_they_speak_for_once():
    found = cited(completion("We open at 9 [1]. It is the Dunnock.", HOURS, VANS))
    assert found.cited_text == "We open at 9. [1] It is the Dunnock. [2]"


def test_numbers_that_stand_nowhere_are_told():
    assert support_of("It costs 3150 euros.", QUESTION, [VANS]).numbers == 1.0
    assert support_of("It costs 4150 euros.", QUESTION, [VANS]).numbers == 0.0
    assert support_of("It costs 4150 euros.", QUESTION, [VANS]).share < 0.5
    assert support_of("The Dunnock.", QUESTION, [VANS]).numbers == 1.0


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ("2 seats", 1.0),
        ("two seats", 1.0),
        ("1. Dunnock\n2. Wren", 1.0),
        ("Of 77 vans the Dunnock.", 1.0),
        ("Of 77 vans 78.", 0.0),
        ("3150 euros for 12 bikes, not 13", 2 / 3),
    ],
    ids=["digits", "spelled", "list", "of_the_question", "both", "some"],
)
def test_numbers_of_lists_and_of_the_question_are_not_invented(answer, numbers):
    assert support_of(answer, "Which of the 77 vans is electric?", [VANS]).numbers == pytest.approx(numbers)


def test_a_number_is_the_same_spelled_out():
    six = Passage("f", "frames.md", "Frames carry a warranty of six years.")
    for answer in ("6 years", "Six years."):
        found = support_of(answer, "How long is the warranty?", [six])
        assert (found.numbers, [c.quote for c in found.citations]) == (1.0, [six.text])


def test_repeating_the_question_is_little_ground():
    repeated = support_of("The van that is electric is Robin.", QUESTION, [VANS])
    assert repeated.share < support_of("The van that is electric is Dunnock.", QUESTION, [VANS]).share
    assert repeated.share < 0.6


def test_where_nothing_was_shown_nothing_is_cited():
    for bare in (
        completion("Dunnock"),
        Completion("Dunnock"),
        completion("  ", VANS),
        replace(completion("a", VANS), asked=replace(completion("a", VANS).asked, choices=("a", "b"))),
    ):
        assert support_for(bare) is None


def test_marks_are_left_out_of_what_is_compared():
    assert uncited("Two days [1], or three [2, 3].") == "Two days, or three."
    assert uncited("a[x] [100]") == "a[x] [100]"
    assert uncited("[1] Two days. [1][3]") == " Two days."
    code = "Use sys.argv[1] and items[0], see [1](http://x.y)."
    assert uncited(code) == code


TEXTS = st.text(st.sampled_from("ab12 .\n[]€İ😀"), min_size=1, max_size=80)
"""Few characters, so that answers and passages share words; of one, two and four bytes, or two letters in small."""


@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=3))
def test_whatever_the_texts_citations_are_true(answer, question, texts):
    passages = [p for n, t in enumerate(texts) for p in split_document(Document(f"{n}", t), max_chars=50)]
    found = support_of(answer, question, passages)
    assert 0 <= found.share <= 1.000001
    assert 0 <= found.numbers <= 1
    assert 0 <= found.near <= 1
    for c in found.citations:
        passage = passages[c.number - 1]
        assert passage.text[c.start - passage.start : c.end - passage.start] == c.quote
        assert texts[int(c.document)][c.start : c.end] == c.quote
        assert 0 <= c.answer_start < c.answer_end <= len(answer)
        assert 0.5 <= c.support <= 1.000001
