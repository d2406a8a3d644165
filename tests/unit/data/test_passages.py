"""Passages: slices of the document, along its structure, stable under edits."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.data.passages import split_document
from tailorbird.records import Document

SENTENCES = [
    f"Sentence number {i} tells something about topic {i * 37 % 101} and ends here." for i in range(200)
]
PROSE = "\n\n".join(" ".join(SENTENCES[i : i + 5]) for i in range(0, 200, 5))

pieces = st.sampled_from(
    [
        "# Head\n",
        "## Sub\n",
        "A sentence. ",
        "Another one! ",
        "\n",
        "\n\n",
        "- item\n",
        "a | b\n",
        "```\n",
        "x" * 70,
        "Dr. No ",
        "日本語。",
    ]
)


def texts_of(text, **settings):
    return [p.text for p in split_document(Document("d.md", text), **settings)]


@given(st.lists(pieces, max_size=40).map("".join), st.integers(50, 200))
def test_passages_are_slices_that_cover_every_word_once(text, max_chars):
    document = Document("d.md", text)
    at = 0
    for passage in split_document(document, max_chars=max_chars):
        assert text[passage.start : passage.end] == passage.text == passage.text.strip() != ""
        assert passage.start >= at
        assert not text[at : passage.start].strip()
        at = passage.end
    assert not text[at:].strip()


@given(st.lists(pieces, max_size=40).map("".join))
def test_ids_are_unique_and_repeatable(text):
    first, again = (split_document(Document("d.md", text), max_chars=60) for _ in range(2))
    assert first == again
    assert len({p.id for p in first}) == len(first)


def test_prose_is_cut_at_sentence_ends_within_the_limit():
    passages = texts_of(PROSE, max_chars=400)
    assert max(map(len, passages)) <= 400
    assert all(text.endswith("here.") and text.startswith("Sentence") for text in passages)
    assert sum(map(len, passages)) / len(passages) > 200


def test_a_heading_restarts_and_its_path_is_kept():
    text = "Intro.\n\n# Returns #\n\nText.\n\n## How\n\nSo.\n\n## Where\n\nThere.\n\n# Fees\n\nNone."
    passages = split_document(Document("d.md", text, version="v1"))
    assert [(p.headings, p.text) for p in passages] == [
        ((), "Intro."),
        (("Returns",), "# Returns #\n\nText."),
        (("Returns", "How"), "## How\n\nSo."),
        (("Returns", "Where"), "## Where\n\nThere."),
        (("Fees",), "# Fees\n\nNone."),
    ]
    assert {(p.document, p.title, p.version, p.page) for p in passages} == {("d.md", "Returns", "v1", None)}


def test_headings_with_nothing_beneath_lead_into_the_next():
    assert texts_of("# A\n\n## B\n\nText.\n\n## C") == ["# A\n\n## B\n\nText.", "## C"]


def test_the_title_of_the_document_comes_first():
    assert split_document(Document("d", "# Head\nx", title="Name"))[0].title == "Name"


def test_a_hash_inside_code_is_no_heading():
    (passage,) = split_document(Document("d", "# Setup\n\n```\n# comment\nrun\n```\nDone."))
    assert passage.headings == ("Setup",)


def test_code_stays_whole_up_to_twice_the_limit():
    code = "```\n" + "\n".join(f"line_{i} = call(argument)." for i in range(6)) + "\n```"
    assert 100 < len(code) <= 200
    assert code in texts_of(f"Before it.\n\n{code}\n\nAfter it.", max_chars=100)
    long = "```\n" + "\n".join(f"line_{i} = call(argument)." for i in range(30)) + "\n```"
    cut = texts_of(long, max_chars=100)
    assert max(map(len, cut)) <= 100
    assert all(text.endswith((".", "```")) for text in cut)


def test_a_long_table_is_cut_between_rows_which_carry_the_header():
    rows = [f"Card {i} | {i} EUR" for i in range(40)]
    text = "# Fees\n\n" + "\n".join(["Card | Fee", *rows])
    passages = split_document(Document("d", text), max_chars=100)
    assert passages[0].text.startswith("# Fees\n\nCard | Fee\nCard 0 | 0 EUR")
    assert passages[0].headings == ("Fees",)
    assert {p.headings for p in passages[1:]} == {("Fees", "Card | Fee")}
    assert all(line in ["# Fees", "", "Card | Fee", *rows] for p in passages for line in p.text.split("\n"))
    short = "Intro.\n\n" + "\n".join(["Card | Fee", *rows[:6]])
    assert "\n".join(["Card | Fee", *rows[:6]]) in texts_of(short, max_chars=60)


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith met Prof. Jones at 5 p.m. in the U.S. office.",
        "See e.g. Fig. 3 and J. Doe et al. Version 2.5 works.",
        'He said "Stop!" and left.',
        "Use example.com or config.toml now.",
    ],
)
def test_a_point_that_ends_no_sentence_is_no_cut(sentence):
    filler = "Another sentence stands before it, somewhat longer than the limit allows for both of them."
    passages = texts_of(f"{filler} {sentence}", max_chars=95)
    assert passages[0] == filler
    assert all(part in sentence for part in passages[1:])
    assert not any(
        text.endswith(("Dr.", "Prof.", "e.g.", "Fig.", "J.", "p.m.", "al.", '"Stop!"')) for text in passages
    )


def test_a_sentence_without_end_is_cut_between_words():
    cut = texts_of("word " * 100, max_chars=60)
    assert max(map(len, cut)) <= 60
    assert {word for text in cut for word in text.split()} == {"word"}
    assert max(map(len, texts_of("x" * 500, max_chars=60))) == 60


@pytest.mark.parametrize("per_paragraph", [5, 200])
def test_an_edited_sentence_changes_few_passages(per_paragraph):
    text = "\n\n".join(" ".join(SENTENCES[i : i + per_paragraph]) for i in range(0, 200, per_paragraph))
    before = {p.id for p in split_document(Document("d", text), max_chars=500)}
    num_changed: list[int] = []
    for change in SENTENCES[::20]:
        for new in ("A new sentence. " + change, change.replace("something", "a lot"), ""):
            edited = Document("d", text.replace(change, new))
            num_changed.append(len({p.id for p in split_document(edited, max_chars=500)} - before))
    assert len(before) > 30
    assert min(num_changed) == 1
    assert sum(num_changed) / len(num_changed) < 2


def test_the_same_text_twice_has_two_ids_and_other_documents_have_others():
    passages = split_document(Document("d", "# A\nSame.\n# A\nSame."))
    assert passages[0].text == passages[1].text
    assert passages[0].id != passages[1].id
    assert {p.id for p in passages}.isdisjoint(
        p.id for p in split_document(Document("e", "# A\nSame.\n# A\nSame."))
    )


def test_pages_are_counted_from_one():
    first, second = "On the first page. " * 20, "On the second page. " * 20
    document = Document("d.pdf", f"{first}\n\n{second}", page_starts=(0, len(first) + 2))
    pages = [p.page for p in split_document(document, max_chars=200)]
    assert pages[0] == 1
    assert pages[-1] == 2
    assert pages == sorted(pages)


def test_an_empty_document_has_no_passages():
    assert split_document(Document("d", " \n\n")) == []


def test_a_limit_that_shreds_is_refused():
    with pytest.raises(ValueError, match="max_chars=49 cuts sentences to shreds"):
        split_document(Document("d", "x"), max_chars=49)


@pytest.mark.parametrize(
    "line",
    ["# " + " " * 200_000 + "x", "-" * 200_000 + "x", "." * 200_000 + "x", "a |" * 60_000, '."' * 90_000],
)
def test_hostile_lines_are_cut_in_linear_time(line):
    begin = time.perf_counter()
    texts_of(f"a | b\n{line}")
    assert time.perf_counter() - begin < 20
