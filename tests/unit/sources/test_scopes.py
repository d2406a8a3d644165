"""Who may read what: whatever is asked, and by whom, nothing else is found."""

import fnmatch
import sqlite3
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailorbird.errors import InputError
from tailorbird.models.model import Wrapped
from tailorbird.records import NOT_IN_DOCUMENTS, Document, Message, Passage, Reader, Request, Scope
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.scopes import Rules
from tailorbird.sources.source import search_within
from tailorbird.sources.stores import SearchSettings
from tailorbird.sources.wikipedia import Wikipedia
from tailorbird.techniques.lookup import Lookup
from tailorbird.testing.sources import ODD_QUERIES, WordHash

TENANTS, GROUPS, KINDS = ("", "acme", "globex"), ("staff", "boss", 'o\'neil "x"'), ("faq", "memo", "Straße")
WORDS = ("card", "freeze", "lost", "rate", "euro", "passport", "account", "number", "week", "branch")


@dataclass
class Listing:
    items: list = field(default_factory=list)
    name: str = "listing"
    complete: bool = True

    def documents(self):
        return iter(self.items)


def corpus():
    """Documents of all tenants, groups and facts, among them equal texts of different readers."""
    made = []
    for n in range(60):
        text = f"{WORDS[n % 10]} {WORDS[(n * 7) % 10]} {WORDS[(n // 3) % 10]} {'' if n % 4 else n}."
        access = tuple(g for i, g in enumerate(GROUPS) if (n >> i) & 1) if n % 3 else ()
        facts = (("kind", KINDS[n % 3]), *((("year", str(2020 + n % 2)),) if n % 2 else ()))
        folder = ("faq", "notes", "a[1]*")[n % 3]
        made.append(Document(f"{folder}/{n}.md", text, tenant=TENANTS[n % 3], access=access, facts=facts))
    return made


CORPUS = {document.id: document for document in corpus()}
KINDS_OF_INDEX = {
    "sqlite": SearchSettings(store="numpy", words="fts5"),
    "faiss and tantivy": SearchSettings(store="faiss", words="tantivy"),
}


@pytest.fixture(scope="module", params=list(KINDS_OF_INDEX))
def index(request, tmp_path_factory):
    if request.param != "sqlite":
        pytest.importorskip("faiss")
        pytest.importorskip("tantivy")
    path = tmp_path_factory.mktemp("scopes") / "index.db"
    with KnowledgeIndex(path, WordHash(), settings=KINDS_OF_INDEX[request.param]) as index:
        report = index.sync(Listing(list(CORPUS.values())))
        assert bool(report.stores) == (request.param != "sqlite")
        yield index


def may_see(only, document):
    """The rule in plain words, written without the code under test."""
    if only is None:
        return True
    if only.reader is not None:
        if document.tenant != only.reader.tenant:
            return False
        if document.access and not set(document.access) & set(only.reader.groups):
            return False
    for name in {name for name, _ in only.facts}:
        wanted = {value for n, value in only.facts if n == name}
        if not wanted & {value for n, value in document.facts if n == name}:
            return False
    return not only.documents or fnmatch.fnmatchcase(document.id, only.documents)


readers = st.builds(
    Reader,
    st.sampled_from((*TENANTS, "nobody")),
    st.lists(st.sampled_from((*GROUPS, "x")), max_size=3).map(tuple),
)
facts = st.lists(
    st.tuples(st.sampled_from(("kind", "year", "none")), st.sampled_from((*KINDS, "2020", "2021"))),
    max_size=3,
).map(tuple)
patterns = st.sampled_from(("", "faq/*", "*/1?.md", "a[[]1]*", "nothing*"))
scopes = st.builds(Scope, st.none() | readers, facts, patterns)
queries = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join) | st.sampled_from(
    ODD_QUERIES
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(only=st.none() | scopes, query=queries, k=st.integers(1, 70))
def test_a_reader_finds_exactly_the_best_of_what_is_allowed(index, only, query, k):
    allowed = {name for name, document in CORPUS.items() if may_see(only, document)}
    for search in (index.search, index.keyword_search, index.vector_search):
        found = search(query, k, only=only)
        assert {p.document for p in found} <= allowed
    if query.strip():
        found = index.vector_search(query, k, only=only)
        true = sorted((similarity(query, CORPUS[name]) for name in allowed), reverse=True)[:k]
        assert np.allclose([p.score for p in found], true, atol=2e-3)
        assert len(index.search(query, 70, only=only)) == min(70, len(allowed)) or k > 50


def similarity(query, document):
    one, other = WordHash().embed([query, document.text])
    return float(one @ other.astype(np.float16).astype(np.float32))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(only=scopes, query=queries)
def test_keyword_rankings_are_what_is_left_of_the_whole_ranking(index, only, query):
    whole = [p.document for p in index.keyword_search(query, 70) if may_see(only, CORPUS[p.document])]
    assert [p.document for p in index.keyword_search(query, 70, only=only)] == whole


# ---- rules


SECRET = Document("pay.md", "The boss earns ten thousand euros.", access=("boss",))
PLAIN = Document("open.md", "A card costs ten euros.")
STAFF = Scope(Reader("", ("staff",)))
BOSS = Scope(Reader("", ("boss",)))


def ids(passages):
    return {p.document for p in passages}


@pytest.fixture
def small(tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Listing([SECRET, PLAIN]))
        yield index


def test_the_owner_finds_everything_and_readers_what_they_may(small):
    assert ids(small.search("euros")) == {"pay.md", "open.md"}
    assert ids(small.search("euros", only=STAFF)) == {"open.md"}
    assert ids(small.search("euros", only=BOSS)) == {"pay.md", "open.md"}
    assert ids(small.search("euros", only=Scope(Reader()))) == {"open.md"}
    assert ids(small.search("euros", only=Scope(Reader("acme", ("boss",))))) == set()


def test_a_places_rules_narrow_those_of_its_documents():
    own = Rules("", ("staff", "boss"), (("kind", "faq"),))
    assert own.narrowed(Rules("acme", ("boss", "board"))) == Rules("acme", ("boss",), (("kind", "faq"),))
    assert Rules("acme").narrowed(Rules("acme", ("boss",))) == Rules("acme", ("boss",))
    assert own.narrowed(Rules("", ("board",))).access is None
    assert Rules("globex").narrowed(Rules("acme")).terms() == ()
    assert own.narrowed(Rules()) == own
    assert own.narrowed(Rules(facts=(("year", "1"),))).facts == (("kind", "faq"), ("year", "1"))


groups = st.lists(st.sampled_from(GROUPS), max_size=3).map(tuple)


@given(own=groups, by=groups, reader=groups)
def test_narrowing_never_lets_anybody_read_who_could_not(own, by, reader):
    asked = {*(term for group in reader for term in Rules(access=(group,)).terms()), *Rules().terms()}
    both = Rules(access=own).narrowed(Rules(access=by))
    if set(both.terms()) & asked:
        assert set(Rules(access=own).terms()) & asked
        assert set(Rules(access=by).terms()) & asked


def test_other_rules_take_effect_with_the_next_sync_and_embed_nothing(small):
    report = small.sync(Listing([SECRET, PLAIN]), rules=Rules("acme", ("board",)))
    assert (report.unchanged, report.ruled, report.embedded) == (2, 2, 0)
    assert small.search("euros", only=BOSS) == []
    assert ids(small.search("euros", only=Scope(Reader("acme", ("board",))))) == {"open.md"}
    assert ids(small.search("euros")) == {"pay.md", "open.md"}  # board and boss have nobody in common
    dry = small.sync(Listing([SECRET, PLAIN]), dry_run=True)
    assert (dry.ruled, dry.embedded) == (2, 0)
    assert ids(small.search("euros", only=BOSS)) == set()
    small.sync(Listing([SECRET, PLAIN]))
    assert ids(small.search("euros", only=BOSS)) == {"pay.md", "open.md"}
    report = small.sync(Listing([replace(SECRET, access=("staff",)), PLAIN]))
    assert (report.changed, report.embedded) == (1, 0)
    assert ids(small.search("euros", only=STAFF)) == {"pay.md", "open.md"}
    assert small.sync(Listing([replace(SECRET, access=("staff",)), PLAIN])).ruled == 0


def test_fingerprints_copies_and_what_is_forgotten_go_with_the_rules(small, tmp_path):
    before = small.fingerprint()
    small.copy(tmp_path / "copy.db")
    with KnowledgeIndex(tmp_path / "copy.db", WordHash(), read_only=True) as copied:
        assert copied.fingerprint() == before
        assert ids(copied.search("euros", only=STAFF)) == {"open.md"}
    small.sync(Listing([SECRET, PLAIN]), rules=Rules(access=("boss",)))
    assert small.fingerprint() != before
    small.forget("listing")
    assert small.search("euros", only=BOSS) == []
    with sqlite3.connect(tmp_path / "index.db") as connection:
        assert connection.execute("SELECT count(*) FROM document_terms").fetchone() == (0,)
    connection.close()


def test_vectors_made_for_a_question_are_of_what_its_reader_may_see(tmp_path):
    made = []

    @dataclass
    class Failing:
        fail: bool = True
        name = "word-hash-64"
        dimensions = 64

        def embed(self, texts):
            if self.fail:
                raise RuntimeError("power cut")
            made.extend(texts)
            return WordHash().embed(texts)

    embedder = Failing()
    with KnowledgeIndex(tmp_path / "index.db", embedder) as index:
        with pytest.raises(RuntimeError):
            index.sync(Listing([SECRET, PLAIN]))
        embedder.fail = False
        assert ids(index.search("euros", only=STAFF)) == {"open.md"}
        assert made == ["euros", PLAIN.text]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (replace(PLAIN, tenant="a\nb"), "without control characters"),
        (replace(PLAIN, access=("",)), "has no name"),
        (replace(PLAIN, facts=(("", "x"),)), "has no name"),
        (replace(PLAIN, facts=(("kind", 7),)), "7 can't be a tenant, a group or a fact"),
    ],
    ids=["control", "group", "fact", "number"],
)
def test_rules_that_cannot_be_kept_are_refused_and_change_nothing(small, document, message):
    before = small.fingerprint()
    with pytest.raises(InputError, match=message):
        small.sync(Listing([document]))
    assert small.fingerprint() == before
    with pytest.raises(InputError, match="Give it as NAME=VALUE"):
        small.search("x", only=Scope(facts=(("", "x"),)))


# ---- an index from before there were rules


VERSION_1 = """
DROP TABLE document_terms; DROP TABLE word_changes; DROP TABLE vector_changes;
DROP TRIGGER passage_came; DROP TRIGGER passage_went;
DROP TRIGGER vector_came; DROP TRIGGER document_went; DELETE FROM counters WHERE name = 'identity';
ALTER TABLE documents DROP COLUMN own; ALTER TABLE documents DROP COLUMN rules; PRAGMA user_version = 1;
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_an_index_without_rules_is_one_that_everyone_of_the_tenant_without_a_name_may_read(
    tmp_path, read_only
):
    path = tmp_path / "index.db"
    with KnowledgeIndex(path, WordHash()) as index:
        index.sync(Listing([PLAIN]))
        fingerprint = index.fingerprint()
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
    connection.close()
    before = path.read_bytes()
    with KnowledgeIndex(path, WordHash(), read_only=read_only) as index:
        assert index.fingerprint() == fingerprint
        assert ids(index.search("card")) == ids(index.search("card", only=STAFF)) == {"open.md"}
        assert index.search("card", only=Scope(Reader("acme"))) == []
        assert index.search("card", only=Scope(documents="x*")) == []
        if not read_only:
            report = index.sync(Listing([PLAIN, SECRET]))
            assert (report.unchanged, report.added, report.ruled) == (1, 1, 0)
            assert ids(index.search("euros", only=STAFF)) == {"open.md"}
    assert (path.read_bytes() == before) == read_only


# ---- sources that can't tell


@dataclass(frozen=True)
class Live:
    public: bool = False

    def search(self, query, k):
        return [Passage("1", "live", query)][:k]


def test_a_source_that_cannot_tell_readers_apart_is_not_asked_for_them(small):
    assert search_within(Live(), "q", 3, None) == search_within(Live(), "q", 3, Scope()) != []
    assert search_within(Live(), "q", 3, STAFF) == []
    assert search_within(Live(public=True), "q", 3, STAFF) != []
    assert search_within(Live(public=True), "q", 3, Scope(facts=(("kind", "faq"),))) == []
    assert ids(search_within(small, "euros", 3, STAFF)) == {"open.md"}
    assert Wikipedia().public
    assert not Wikipedia(endpoint="https://wiki.corp/api.php").public


def test_knowledge_is_looked_up_as_the_request_allows(small):
    asked = []

    class Base:
        name = "base"

        def answer(self, requests):
            asked.extend(requests)
            return []

        def stream(self, request):
            return iter(())

    model = Wrapped(Base(), Lookup(small, 5, -1.0))
    question = Request((Message("user", "euros"),))
    for only in (None, STAFF, Scope(Reader("acme"))):
        model.answer([replace(question, only=only)])
    assert [ids(request.evidence) for request in asked] == [{"pay.md", "open.md"}, {"open.md"}, set()]
    assert asked[2].choices == (NOT_IN_DOCUMENTS,)
