from dataclasses import dataclass, field, replace

import pytest

from tailorbird.data.task import Data, Task
from tailorbird.models.model import ReviewingRewrite, TeachingRewrite, Wrapped, lessons_for_weights
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example, Message, Passage, Request
from tailorbird.sources.gate import Gate
from tailorbird.techniques.grounding import (
    ONLY_NUMBERS,
    fit_ground,
    gold_of,
    missing_share,
    with_gold,
    without_gold,
)
from tailorbird.techniques.knowledge import Knowledge
from tailorbird.techniques.lookup import Lookup, load_lookup

TASK = Task("answer", "Be brief.")


def passage(name, text, document="d.md", score=0.5):
    return Passage(name, document, text, score=score)


GOLD = passage("gold", "The lamp costs 40 euros.", "lamps.md", 0.6)
OTHERS = [passage(f"o{n}", f"Other thing number {n}.", f"{n}.md", 0.5) for n in range(6)]
EXAMPLE = Example.pair("What costs the lamp?", "40 euros", document="lamps.md")


@dataclass(frozen=True)
class Shelf:
    """A source that finds what it was given."""

    passages: tuple = field(default=(*OTHERS[:3], GOLD, *OTHERS[3:]))

    def search(self, query, k):
        return list(self.passages[:k])


@dataclass(frozen=True)
class Reader:
    """Says the gold passage's answer where it is shown, and something of its own elsewhere."""

    name: str = "reader"
    invents: str = "17 euros"

    def answer(self, requests):
        return [
            Completion("40 euros" if GOLD in r.evidence else self.invents, asked=r)
            if r.choices is None
            else Completion(r.choices[0], asked=r)
            for r in requests
        ]

    def stream(self, request):
        [completion] = self.answer([request])
        yield from completion.text
        return completion


def told(stream):
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def test_what_holds_the_answer_is_known_by_its_words_in_the_document_named():
    elsewhere = passage("x", "Also 40 euros.", "bells.md")
    assert gold_of(EXAMPLE, [elsewhere, *OTHERS, GOLD]) == GOLD
    assert gold_of(replace(EXAMPLE, document=None), [elsewhere, GOLD]) == elsewhere
    assert gold_of(replace(EXAMPLE, completion="cheap"), [elsewhere, GOLD]) == GOLD
    assert gold_of(replace(EXAMPLE, completion="cheap", document=None), [elsewhere, GOLD]) is None
    assert gold_of(EXAMPLE, OTHERS) is None


def test_training_is_shown_what_holds_the_answer_and_distractors():
    shown = with_gold(EXAMPLE, [*OTHERS, GOLD], 3)
    assert GOLD in shown
    assert len(shown) == 3
    assert list(with_gold(EXAMPLE, [GOLD, *OTHERS], 3)) == [GOLD, *OTHERS[:2]]
    places = {list(with_gold(replace(EXAMPLE, id=f"{n}"), [*OTHERS, GOLD], 3)).index(GOLD) for n in range(30)}
    assert places == {0, 1, 2}


def test_a_share_of_the_examples_is_also_shown_without_it():
    found = [GOLD, *OTHERS, passage("twin", "It costs 40 Euros!", "copy.md")]
    examples = [replace(EXAMPLE, id=f"{n}") for n in range(400)]
    shown = [without_gold(e, found, 3, 0.2) for e in examples]
    assert 50 < sum(bool(s) for s in shown) < 110
    assert all(list(s) == OTHERS[:3] for s in shown if s)
    assert not any(without_gold(e, found, 3, 0.0) for e in examples)
    assert all("twin" not in {p.id for p in without_gold(e, found, 9, 1.0)} for e in examples)


@pytest.mark.parametrize(("unanswerable", "share"), [(0, 0.1), (5, 0.05), (10, 0.0), (40, 0.0)])
def test_as_many_are_shown_without_their_answer_as_make_one_in_ten_a_refusal(unanswerable, share):
    refused = [Example.pair(f"Why {n}?", NOT_IN_DOCUMENTS) for n in range(unanswerable)]
    given = [*refused, *(Example.pair(f"What {n}?", "40") for n in range(100 - unanswerable))]
    missing = missing_share(given)
    assert (unanswerable + 100 * missing) / (100 + 100 * missing) == pytest.approx(
        max(0.1, unanswerable / 100)
    )
    assert missing == pytest.approx(share / 0.9)
    assert missing_share([]) == 0.0


def test_an_example_becomes_lessons_with_and_without_its_passage():
    lookup = Lookup(Shelf(), 2, 0.9, missing=1.0)
    assert isinstance(lookup, TeachingRewrite)
    model = Wrapped(Reader(), lookup)
    (learnt, request), (refused, without) = lessons_for_weights(model, EXAMPLE, TASK.ask(EXAMPLE))
    assert (learnt.completion, refused.completion) == ("40 euros", NOT_IN_DOCUMENTS)
    assert GOLD in request.evidence
    assert GOLD not in without.evidence
    assert len(request.evidence) == len(without.evidence) == 2
    assert request.choices is without.choices is None


def test_what_is_preferred_turns_round_where_the_passage_is_missing():
    lookup = Lookup(Shelf(), 2, 0.0, missing=1.0)
    example = replace(EXAMPLE, rejected="50 euros")
    _, (refused, _) = lookup.lessons(example, TASK.ask(example))
    assert (refused.completion, refused.rejected) == (NOT_IN_DOCUMENTS, "40 euros")


@pytest.mark.parametrize(
    ("example", "choices"), [(EXAMPLE, ("a", "b")), (Example.pair("Why?", NOT_IN_DOCUMENTS), None)]
)
def test_labels_and_refusals_are_learnt_as_they_are_asked(example, choices):
    lookup = Lookup(Shelf(), 2, 0.0, missing=1.0)
    request = replace(TASK.ask(example), choices=choices)
    assert lookup.lessons(example, request) == [(example, lookup(request))]


# -- the gate behind the answer -------------------------------------------------------------------


def test_an_answer_without_ground_is_withheld_and_kept():
    lookup = Lookup(Shelf(OTHERS[:2]), 2, 0.0, ground=ONLY_NUMBERS)
    assert isinstance(lookup, ReviewingRewrite)
    [answer] = Wrapped(Reader(), lookup).answer([TASK.ask(EXAMPLE)])
    assert (answer.text, answer.withheld, answer.citations) == (NOT_IN_DOCUMENTS, "17 euros", ())
    assert answer.support == 0.0


def test_an_answer_with_ground_is_given_and_cited():
    lookup = Lookup(Shelf((GOLD,)), 1, 0.0, ground=ONLY_NUMBERS)
    [answer] = Wrapped(Reader(), lookup).answer([TASK.ask(EXAMPLE)])
    assert (answer.text, answer.withheld) == ("40 euros", None)
    assert [c.quote for c in answer.citations] == ["The lamp costs 40 euros."]


@pytest.mark.parametrize("ground", [None, ONLY_NUMBERS])
@pytest.mark.parametrize("passages", [(GOLD,), tuple(OTHERS)])
def test_a_stream_gives_what_an_answer_gives(ground, passages):
    model = Wrapped(Reader(), Lookup(Shelf(passages), 1, 0.0, ground=ground))
    [answer] = model.answer([TASK.ask(EXAMPLE)])
    pieces, completion = told(model.stream(TASK.ask(EXAMPLE)))
    assert "".join(pieces) == answer.text
    assert completion == answer
    assert len(pieces) == (1 if ground else len(answer.text))


@pytest.mark.parametrize("ground", [None, ONLY_NUMBERS])
def test_a_refusal_rests_on_nothing(ground):
    about = passage("d", "It is not in the documents, they say.")
    lookup = Lookup(Shelf((about,)), 1, 0.0, ground=ground)
    answer = Completion(NOT_IN_DOCUMENTS, asked=lookup(TASK.ask(EXAMPLE)))
    assert lookup.review(answer) == answer


def test_an_answer_whose_passages_had_no_room_is_withheld():
    lookup = Lookup(Shelf((GOLD,)), 1, 0.0, ground=ONLY_NUMBERS)
    trimmed = replace(lookup(TASK.ask(EXAMPLE)), evidence=())
    answer = lookup.review(Completion("Nine of them.", asked=trimmed))
    assert (answer.text, answer.withheld) == (NOT_IN_DOCUMENTS, "Nine of them.")
    assert replace(lookup, ground=None).review(Completion("Nine.", asked=trimmed)).withheld is None


def test_a_document_of_a_schema_is_never_replaced():
    lookup = Lookup(Shelf(tuple(OTHERS[:1])), 1, 0.0, ground=ONLY_NUMBERS)
    asked = replace(lookup(TASK.ask(EXAMPLE)), schema='{"type": "object"}')
    assert lookup.review(Completion('{"price": 77}', asked=asked)).withheld is None


def test_what_was_said_does_not_let_another_question_pass():
    class Two:
        def search(self, query, k):
            return [replace(GOLD, score=0.9 if "lamp" in query else 0.1)][:k]

    turns = (Message("user", "What costs the lamp?"), Message("assistant", "40 euros."))
    lookup = Lookup(Two(), 1, 0.5)

    def asks(text):
        return lookup(Request((*turns, Message("user", text)))).choices

    assert (
        asks("Who wrote Hamlet?")
        == asks("Where do the penguins of Peru spend winter?")
        == (NOT_IN_DOCUMENTS,)
    )
    assert asks("And how heavy is it?") is None


def test_a_label_is_never_withheld():
    lookup = Lookup(Shelf(OTHERS[:2]), 2, 0.0, ground=ONLY_NUMBERS)
    [answer] = Wrapped(Reader(), lookup).answer([replace(TASK.ask(EXAMPLE), choices=("17 euros", "b"))])
    assert (answer.text, answer.withheld) == ("17 euros", None)


def examples(count):
    return tuple(
        Example.pair(f"What costs the lamp in {n}?", "40 euros", document="lamps.md") for n in range(count)
    )


def test_the_gate_is_fitted_to_right_answers_and_to_those_without_their_document():
    data = Data(TASK, (), dev=examples(12))
    lookup = Lookup(Shelf((GOLD, *OTHERS)), 2, 0.0)
    gate = fit_ground(lookup, Reader(), data)
    good, bad = ((0.6, share, share, 0.5) for share in (1.0, 0.0))
    assert gate.passes(good)
    assert not gate.passes(bad)
    fitted = lookup.fitted(Reader(), data)
    assert fitted.ground == gate
    assert fitted.unfitted() == lookup


@pytest.mark.parametrize(
    ("dev", "reader"),
    [(examples(4), Reader()), (examples(12), Reader(invents=NOT_IN_DOCUMENTS)), ((), Reader())],
    ids=["too_few", "refuses_by_itself", "none"],
)
def test_without_cases_of_both_kinds_invented_numbers_are_withheld(dev, reader, caplog):
    caplog.set_level("INFO", "tailorbird")
    lookup = Lookup(Shelf((GOLD, *OTHERS)), 2, 0.0)
    assert lookup.fitted(reader, Data(TASK, (), dev=dev)) == replace(lookup, ground=ONLY_NUMBERS)
    assert ("answers are checked for invented numbers only" in caplog.text) is bool(dev)


@pytest.mark.parametrize(
    ("answer", "withheld"),
    [
        ("40 euros", False),
        ("17 euros", True),
        ("It costs 40, not 17.", False),
        ("A lamp.", False),
        ("Robin", False),
    ],
)
def test_the_gate_that_nothing_was_fitted_to_looks_at_numbers(answer, withheld):
    lookup = Lookup(Shelf((GOLD,)), 1, 0.0, ground=ONLY_NUMBERS)
    asked = lookup(TASK.ask(EXAMPLE))
    assert (lookup.review(Completion(answer, asked=asked)).withheld is not None) is withheld


def test_checking_answers_can_be_left_out():
    lookup = Lookup(Shelf((GOLD, *OTHERS)), 2, 0.0, checked=False)
    assert lookup.fitted(Reader(), Data(TASK, (), dev=examples(12))) == lookup


def test_gates_are_saved_with_the_model(tmp_path):
    from tailorbird.sources.wikipedia import Wikipedia

    lookup = Lookup(
        Wikipedia(), 2, 0.0, relevance=Gate((1.0, 2.0, 3.0), 0.5, 0.25), ground=ONLY_NUMBERS, missing=0.5
    )
    assert load_lookup(tmp_path, lookup.save(tmp_path)) == lookup


def test_the_first_gate_stands_before_the_threshold():
    request = Request((Message("user", "What costs the lamp?"),))
    shut = Gate((0.0, 0.0, 0.0), -1.0, 0.5)
    assert Lookup(Shelf(), 2, -1.0, relevance=shut)(request).choices == (NOT_IN_DOCUMENTS,)
    assert Lookup(Shelf(), 2, 2.0, relevance=replace(shut, bias=1.0))(request).choices is None


@pytest.mark.parametrize("missing", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(missing):
    from tailorbird.errors import RecipeError

    with pytest.raises(RecipeError, match=f"missing is {missing}; expected a share of 0 to 1"):
        Knowledge(missing=missing)
