"""Every source, connector and embedder that is shipped keeps its contract; a broken one is caught."""

import numpy as np
import pytest

from tailorbird.records import Document, Passage
from tailorbird.sources.embedder import MiniLM
from tailorbird.sources.folder import Folder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Unreadable
from tailorbird.testing.sources import (
    WordHash,
    check_connector,
    check_embedder,
    check_source,
    check_versioned,
)

DOCUMENTS = {
    "card.md": "# Lost cards\n\nYou can freeze a lost card in the app. A new one costs five euros.\n",
    "rate.txt": "Exchange rates are updated every day at noon.\n",
    "inner/fees.html": "<title>Fees</title><p>A transfer abroad costs two euros.</p>",
    "broken.pdf": "%PDF-1.7 not really",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return Folder(root)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    return MiniLM(cache=tmp_path_factory.mktemp("cache"), threads=1)


def test_the_index_is_a_source(folder, minilm, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", minilm) as index:
        index.sync(folder)
        check_source(index, ["How do I freeze a card?", "exchange rates", "What does a transfer cost?"])


def test_a_read_only_index_is_a_source(folder, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(folder)
        index.copy(tmp_path / "copy.db")
    with KnowledgeIndex(tmp_path / "copy.db", WordHash(), read_only=True) as index:
        check_source(index, ["exchange rates"])


def test_a_folder_is_a_connector(folder):
    check_connector(folder)


def test_a_folder_tells_what_is_as_it_was(folder):
    check_versioned(folder)


def test_minilm_is_an_embedder(minilm):
    check_embedder(minilm)


def test_the_embedder_for_tests_is_one():
    check_embedder(WordHash())


PASSAGES = [Passage(f"p{n}", "d.md", f"text {n}") for n in range(9)]


class Answers:
    """A source that answers by a function."""

    def __init__(self, answer):
        self.search = answer


def fails_on_quotes(query, k):
    if '"' in query:
        raise ValueError("syntax error")
    return PASSAGES[:k]


def changes_its_mind(_query, k, state=[0]):  # noqa: B006
    state[0] += 1
    return PASSAGES[state[0] % 3 :][:k]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (lambda _query, _k: PASSAGES, "with k=0 finds something"),
        (lambda _query, k: PASSAGES[: k and k + 1], "with k=2 finds 3"),
        (lambda _query, _k: [], "finds nothing"),
        (lambda _query, k: [PASSAGES[0]] * k, "finds a passage twice"),
        (lambda _query, k: [Passage("p", "d", " ")][:k], "finds an empty passage"),
        (lambda _query, k: ["text", "more"][:k], "which is no Passage|has no attribute"),
        (fails_on_quotes, "syntax error"),
        (changes_its_mind, "other passages when asked again"),
    ],
)
def test_a_broken_source_is_caught(search, message):
    with pytest.raises((AssertionError, ValueError, AttributeError), match=message):
        check_source(Answers(search), ["a question"])


class Gives:
    """A connector of what it is given."""

    complete = True

    def __init__(self, *items, name="gives"):
        self.name, self.items = name, items

    def documents(self):
        return iter(self.items)


@pytest.mark.parametrize(
    ("connector", "message"),
    [
        (Gives(name=""), "has no name"),
        (Gives(Document("a", "x"), Document("a", "y")), "gives documents twice"),
        (Gives(Document("", "x")), "without an id"),
        (Gives(Unreadable("a", "")), "unreadable without a reason"),
        (Gives(Document("a", "x", page_starts=(5, 0))), "pages are out of order"),
        (Gives(Passage("p", "d", "x")), "the connector gives Passage"),
    ],
)
def test_a_broken_connector_is_caught(connector, message):
    with pytest.raises(AssertionError, match=message):
        check_connector(connector)


class Leaning(WordHash):
    """Lets the other texts of a call bear on a text's vector."""

    def embed(self, texts):
        vectors = super().embed(texts) + 0.1 * super().embed(texts[:1] or [""])[0]
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Long(WordHash):
    def embed(self, texts):
        return 2 * super().embed(texts)


@pytest.mark.parametrize(
    ("embedder", "message"),
    [(Leaning(), "depends on the other texts"), (Long(), "length is 2.0, expected 1")],
)
def test_a_broken_embedder_is_caught(embedder, message):
    with pytest.raises(AssertionError, match=message):
        check_embedder(embedder)
