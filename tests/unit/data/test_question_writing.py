import pytest

from tailorbird.data.duplicates import near_groups
from tailorbird.data.passages import split_document
from tailorbird.data.question_writing import MOST_ANSWER, written_questions
from tailorbird.records import Document, Passage

HANDBOOK = """# Returns

Return postage is £3.80, taken off the refund. The code on the parcel is valid for 12 days after we send it.
The charging room is the brick annexe behind the workshop. It is locked for 3 days.
Staff in the shop get 15% off bikes of last season. The office closed in 2019 for good.
The shop opens on Saturdays at 9:30 for members. The fair begins on 31 October in the old hall.

- **Orange dot**: exchange only, within a week

| Goods | Window | Condition |
|---|---|---|
| Helmets | 30 days | hygiene strip unbroken |
| Books and maps | 10 days | no pencil marks |
"""


def passages(text, name="returns.md"):
    return split_document(Document(name, text), max_chars=2000)


@pytest.fixture(scope="module")
def written():
    return written_questions([passages(HANDBOOK)], 50)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Return postage is how much taken off the refund?", "£3.80"),
        ("The code on the parcel is valid for how many days after we send it?", "12 days"),
        ("What is charging room?", "the brick annexe behind the workshop"),
        ("Staff in the shop get what percentage off bikes of last season?", "15%"),
        ("The office closed in which year for good?", "2019"),
        ("The shop opens on Saturdays at what time for members?", "9:30"),
        ("The fair begins on what date in the old hall?", "31 October"),
        ("What is said of orange dot?", "exchange only, within a week"),
        ("What is the window of Helmets (Returns)?", "30 days"),
        ("What is the condition of Books and maps (Returns)?", "no pencil marks"),
    ],
    ids=["amount", "number", "term", "share", "year", "time", "date", "label", "cell", "second-row"],
)
def test_a_document_is_asked_in_its_own_words(written, question, answer):
    assert answer in [e.completion for e in written if e.prompt == question], [e.prompt for e in written]


def test_every_question_knows_where_its_answer_stands(written):
    for example in written:
        assert HANDBOOK[slice(*example.span)] == example.completion
        assert example.document == "returns.md"
        assert example.synthetic
        assert len(example.completion) <= MOST_ANSWER
        assert example.completion.lower() not in example.prompt.lower()


def test_what_a_reader_could_not_understand_is_not_asked(written):
    assert not [e.prompt for e in written if e.prompt.startswith("It ")]


def test_a_document_gives_no_more_than_asked_spread_over_its_passages():
    things = (
        "bridge over water",
        "garden bench",
        "painted window",
        "kitchen table",
        "wooden ladder",
        "music lesson",
    )
    text = "\n\n".join(
        f"# The {t}\n\nEvery {t} here costs £{n}00 to visitors." for n, t in enumerate(things, 1)
    )
    found = written_questions([split_document(Document("a.md", text), max_chars=80)], 4)
    assert len(found) == 4
    assert len({e.span for e in found}) == 4


def test_what_two_documents_answer_or_nearly_repeats_is_left_out():
    sentence = "Return postage to the warehouse is £3.80 for every parcel that we get."
    again = sentence.replace("every parcel", "every  Parcel")
    found = written_questions([passages(sentence, "a.md"), passages(again, "b.md")], 5)
    assert found == []
    near = [
        passages(
            f"Return postage from the {town} warehouse to the main shop in town is £{n} for a parcel.",
            f"{n}.md",
        )
        for n, town in enumerate(("north", "north "), 3)
    ]
    assert near_groups([e.prompt for e in written_questions(near, 5)]) == []


def test_the_same_documents_give_the_same_questions(written):
    assert written_questions([passages(HANDBOOK)], 50) == written


@pytest.mark.parametrize(
    "text", ["", "|", "||||\n|-|\n| a |", "**:** £", "£3 " * 400, "a" * 5000, "? 12 days ?"]
)
def test_odd_texts_give_no_nonsense(text):
    for example in written_questions([[Passage("1", "odd.md", text, start=5)]], 20):
        start, end = example.span
        assert text[start - 5 : end - 5] == example.completion


def test_no_documents_give_no_questions():
    assert written_questions([], 5) == []
