"""The index and live sources asked together; and live sources by name, with what they found lately."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tailorbird.errors import EndpointError, RecipeError, Unsupported
from tailorbird.records import Document, Passage, Reader, Scope
from tailorbird.sources import live_sources
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.live_sources import LiveSource, forget_answers, live_source, saved_source
from tailorbird.sources.merged import UNDER_WAY, Merged, fused, look_up
from tailorbird.testing.sources import WordHash, check_source


@dataclass
class Named:
    """A live source that answers by a function of the question."""

    name: str
    answer: object
    timeout_s: float = 10.0
    prepared: list = field(default_factory=list)

    def prepare(self):
        self.prepared.append(True)

    def search(self, query, k):
        return self.answer(query)[:k]


def shelf(name, *texts):
    return [Passage(f"{name}{n}", f"{name}.md", text, source=name) for n, text in enumerate(texts)]


def gives(name, *texts):
    return Named(name, lambda _query: shelf(name, *texts))


def breaks(name, error):
    def answer(_query):
        raise error

    return Named(name, answer)


@pytest.fixture
def index(tmp_path):
    class Two:
        name, complete = "two", True

        def documents(self):
            yield Document("cards.md", "You can freeze a lost card in the app.")
            yield Document("rates.md", "Exchange rates change every day.")

    with KnowledgeIndex(tmp_path / "index.db", WordHash(512)) as index:
        index.sync(Two())
        yield index


def test_rankings_are_fused_and_passages_say_where_they_are_from(index):
    merged = Merged((gives("wiki", "w0", "w1"), gives("shop", "s0")), index)
    found = merged.search("lost card", 4)
    assert [(p.source, p.text) for p in found] == [
        ("", "You can freeze a lost card in the app."),
        ("wiki", "w0"),
        ("shop", "s0"),
        ("", "Exchange rates change every day."),
    ]


def scored(name, *scores):
    return [Passage(f"{name}{n}", name, f"{name}{n}", score=score) for n, score in enumerate(scores)]


def test_a_place_in_the_own_ranking_and_the_similarity_count_alike():
    found = fused([scored("a", 0.2, 0.1), scored("b", 0.9, 0.8)], 5)
    assert [p.text for p in found] == ["b0", "a0", "b1", "a1"]
    own_order = fused([scored("a", 0.1, 0.5)], 5)
    assert [p.text for p in own_order] == ["a0", "a1"]


def test_a_source_with_nothing_to_say_takes_no_turns():
    found = fused([scored("a", 0.9, 0.8, 0.7), scored("b", 0.05, 0.04, 0.03)], 3)
    assert [p.text for p in found] == ["a0", "a1", "b0"]


def test_a_text_that_two_sources_find_stands_once_in_its_better_place():
    found = fused([shelf("a", "one", "two", "both"), shelf("b", " both\n", "three")], 5)
    assert [(p.source, p.text.strip()) for p in found] == [
        ("a", "one"),
        ("b", "both"),
        ("a", "two"),
        ("b", "three"),
    ]


def test_it_keeps_the_contract_of_sources(index):
    check_source(Merged((gives("wiki", "w0", "w1", "w2"),), index), ["lost card"])


def test_sources_are_asked_at_the_same_time():
    meet = threading.Barrier(3, timeout=10)

    def answer(query):
        meet.wait()
        return shelf(query, "text")

    found = Merged(tuple(Named(name, answer) for name in "abc")).ask("question", 5)
    assert found.lacking == ()


@pytest.mark.parametrize(
    "error", [EndpointError("the wiki is away"), ValueError("a bug"), KeyError("x"), RecursionError()]
)
def test_a_source_that_fails_leaves_the_others_and_is_said(index, error, caplog):
    with caplog.at_level(logging.WARNING, "tailorbird.sources.merged"):
        merged = Merged((breaks("wiki", error), gives("shop", "s0")), index)
        found = merged.ask("lost card", 3)
        again = merged.ask("rates", 3)
    assert [p.source for p in found.passages] == ["", "shop", ""]
    assert found.lacking == again.lacking
    assert found.lacking[0].startswith("source wiki: ")
    [record] = caplog.records
    assert "the source wiki is left out: " in record.getMessage()


def test_a_source_that_recovers_and_fails_anew_is_logged_anew(caplog):
    answers = [ValueError("down"), None, ValueError("down")]

    def answer(_query):
        if error := answers.pop(0):
            raise error
        return shelf("wiki", "w0")

    merged = Merged((Named("wiki", answer), gives("shop", "s0")))
    for _ in range(3):
        merged.ask("question", 2)
    assert len(caplog.records) == 2


def test_a_source_that_is_late_is_left_out_and_said(index):
    end = threading.Event()

    def late(_query):
        end.wait(30)
        return shelf("wiki", "late")

    began = time.monotonic()
    found = Merged((Named("wiki", late, timeout_s=0.1),), index).ask("lost card", 3)
    assert time.monotonic() - began < 10
    assert found.lacking == ("source wiki: it took longer than 0.1 s.",)
    assert {p.source for p in found.passages} == {""}
    end.set()


def test_a_source_that_hangs_is_not_asked_without_end():
    end, asked = threading.Event(), []

    def hangs(query):
        asked.append(query)
        end.wait(30)
        return []

    merged = Merged((Named("wiki", hangs, timeout_s=0.0), gives("shop", "s0")))
    patch = pytest.MonkeyPatch()
    patch.setattr("tailorbird.sources.merged.GRACE_S", 0.01)
    for number in range(UNDER_WAY + 3):
        found = merged.ask(f"question {number}", 2)
    patch.undo()
    assert len(asked) == UNDER_WAY
    assert found.lacking == (f"source wiki: it still works on {UNDER_WAY} earlier questions.",)
    end.set()


def test_if_all_fail_it_is_an_error_and_no_empty_answer():
    merged = Merged((breaks("wiki", EndpointError("it is away.")), breaks("shop", ValueError("x" * 999))))
    with pytest.raises(
        EndpointError,
        match=r"none of the sources could be asked. source wiki: it is away. source shop: x+… Try",
    ):
        merged.search("question", 3)


def test_finding_nothing_is_no_failure():
    assert look_up(Merged((gives("wiki"),)), "question", 3).passages == ()
    assert Merged((breaks("wiki", ValueError()),)).search(" ", 3) == []


def test_sources_are_made_ready_at_the_same_time_and_not_waited_for_for_long(index, monkeypatch):
    both, hanging = threading.Barrier(2, timeout=60), threading.Event()

    class Slow(Named):
        def prepare(self):
            both.wait()  # passed only by two at once

    class Dead(Named):
        def prepare(self):
            hanging.wait(60)

    slow = tuple(Slow(name, lambda _query, name=name: shelf(name, name)) for name in ("a", "b"))
    assert {p.source for p in Merged(slow).search("question", 4)} == {"a", "b"}
    monkeypatch.setattr("tailorbird.sources.merged.PREPARING_S", 0.2)
    found = Merged((Dead("tool", lambda _query: shelf("tool", "t0")),), index).ask("lost card", 2)
    hanging.set()
    assert found.passages[0].document == "cards.md"
    assert found.lacking == ("source tool: it was not ready within 0.2 s.",)


def test_what_is_to_be_prepared_is_so_before_the_clock_runs():
    slow = Named("tool", lambda _query: shelf("tool", "t0") if slow.prepared else None, timeout_s=0.0)
    assert len(Merged((slow,)).search("question", 1)) == 1


# -- by name --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """What is asked and how often."""

    place: str
    tags: tuple[str, ...] = ()
    timeout_s: float = 1.0
    asked: list = field(default_factory=list, compare=False, init=False)

    def __post_init__(self):
        if self.place == "nowhere":
            raise ValueError("there is no such place")

    def search(self, query, k):
        EVERY.append(query)
        return [Passage(f"p{n}", self.place, f"{word} passage") for n, word in enumerate(query.split())][:k]


EVERY = []


class Plain:
    def search(self, query, k):
        return []


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", lambda: WordHash(512))
    kinds = {**live_sources.LIVE_KINDS, "counted": f"{__name__}:Counted", "plain": f"{__name__}:Plain"}
    monkeypatch.setattr(live_sources, "LIVE_KINDS", kinds)
    EVERY.clear()
    forget_answers()
    yield
    forget_answers()


def test_passages_get_their_source_and_the_similarity_that_an_index_gives():
    found = LiveSource("desk", "counted", {"place": "x"}).search("lost card", 2)
    assert [(p.source, p.document, p.text) for p in found] == [
        ("desk", "x", "lost passage"),
        ("desk", "x", "card passage"),
    ]
    assert found[0].score == pytest.approx(0.5, abs=1e-4)


def test_a_question_is_asked_once_by_all_that_ask_the_same():
    first, second = (LiveSource(name, "counted", {"place": "x"}) for name in ("a", "b"))
    assert [p.text for p in first.search("lost card", 2)] == [p.text for p in second.search("lost card", 2)]
    assert {p.source for p in second.search("lost card", 2)} == {"b"}
    assert len(EVERY) == 1
    first.search("lost card", 1)
    LiveSource("a", "counted", {"place": "y"}).search("lost card", 2)
    assert len(EVERY) == 3
    forget_answers()
    first.search("lost card", 2)
    assert len(EVERY) == 4


def test_those_who_ask_the_same_at_the_same_time_ask_once(monkeypatch):
    def slowly(source, query, k, only):
        time.sleep(0.2)
        return source.search(query, k)

    monkeypatch.setattr(live_sources, "search_within", slowly)
    source = LiveSource("a", "counted", {"place": "x"})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda word: source.search(word, 1), ["card", "card", "lock", "card"]))
    assert sorted(EVERY) == ["card", "lock"]
    assert [passages[0].text for passages in found] == [
        f"{w} passage" for w in ("card", "card", "lock", "card")
    ]
    assert live_sources._LATELY._asking == {}


def test_what_was_found_is_good_for_so_long(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tailorbird.sources.live_sources.time.monotonic", lambda: now[0])
    brief, never = (LiveSource("a", "counted", {"place": "x"}, cache_s=seconds) for seconds in (10.0, 0.0))
    brief.search("card", 1)
    now[0] = 9.0
    brief.search("card", 1)
    assert len(EVERY) == 1
    now[0] = 11.0
    brief.search("card", 1)
    never.search("card", 1)
    assert len(EVERY) == 3


def test_only_so_many_answers_are_kept(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.live_sources.REMEMBERED", 2)
    source = LiveSource("a", "counted", {"place": "x"})
    for question in ("one", "two", "one", "three", "one", "two"):
        source.search(question, 1)
    assert EVERY == ["one", "two", "three", "two"]


def test_a_failure_is_not_remembered():
    source = LiveSource("w", "wikipedia", {"endpoint": "http://127.0.0.1:9/api.php"}, timeout_s=1.0)
    for _ in range(2):
        with pytest.raises(EndpointError, match="cannot be reached"):
            source.search("card", 1)


def test_a_table_of_a_recipe_becomes_a_source_and_comes_back_from_json():
    source = live_source(
        "desk", {"kind": "counted", "place": "x", "tags": ["a", "b"], "timeout_s": 3, "cache_s": 60}
    )
    assert (source.timeout_s, source.cache_s) == (3, 60)
    assert (source.source.tags, source.source.timeout_s) == (("a", "b"), 3.0)
    assert saved_source(source.to_json()) == source
    assert live_source("wikipedia", {"language": "nl"}).source.url == "https://nl.wikipedia.org/w/api.php"


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (
            {"kind": "nothing"},
            Unsupported,
            r"source 'desk': the live source 'nothing', which is not installed.*Known: wiki",
        ),
        (
            {"kind": "wikipedia", "lang": "nl"},
            RecipeError,
            r"unknown setting 'lang'. wikipedia has: language, endpoint",
        ),
        ({"kind": "wikipedia", "language": 5}, RecipeError, "language is 5; expected str"),
        (
            {"kind": "search_api", "url": "https://x.example/{query}", "read_pages": "yes"},
            RecipeError,
            "read_pages is 'yes'",
        ),
        ({"kind": "search_api"}, RecipeError, r"source 'desk': .*'url'. Check the settings"),
        ({"kind": "search_api", "url": "x"}, RecipeError, "source 'desk': search_api: neither the address"),
        (
            {"kind": "counted", "place": "nowhere"},
            RecipeError,
            "source 'desk': there is no such place. Check the",
        ),
        (
            {"kind": "counted", "place": "x", "timeout_s": 0},
            RecipeError,
            "timeout_s is 0; expected seconds, at least 0.1",
        ),
        (
            {"kind": "counted", "place": "x", "cache_s": "1h"},
            RecipeError,
            "cache_s is '1h'; expected seconds",
        ),
        ({"kind": "plain"}, RecipeError, "'plain' is no frozen dataclass"),
    ],
    ids=["kind", "setting", "text", "truth", "needed", "own", "value", "timeout", "cache", "plain"],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_asked(table, error, message):
    with pytest.raises(error, match=message):
        live_source("desk", table)
    assert EVERY == []


def test_settings_that_could_not_be_kept_are_refused():
    with pytest.raises(RecipeError, match="source 'a': its settings hold what JSON can't"):
        LiveSource("a", "counted", {"place": Path("x")})


def test_a_source_that_can_not_tell_who_may_read_is_not_asked_for_a_reader(index):
    secret, open_to_all = gives("shop", "s0"), gives("wiki", "w0")
    open_to_all.public = True
    merged = Merged((secret, open_to_all), index)
    found = merged.ask("lost card", 4, only=Scope(Reader("acme", ("staff",))))
    assert [p.source for p in found.passages] == ["wiki"]
    [lacking] = found.lacking
    assert lacking.startswith("source shop: not asked, as it can't tell who may read what")
    assert secret.prepared == []
    chosen = merged.ask("lost card", 4, only=Scope(facts=(("kind", "faq"),)))
    assert (chosen.passages, len(chosen.lacking)) == ((), 2)
    assert [p.source for p in merged.ask("lost card", 4, only=Scope()).passages][:3] == ["", "shop", "wiki"]


@dataclass(frozen=True)
class Shelves(Counted):
    """A source that keeps to who may read."""

    scoped = True

    def search(self, query, k, *, only=None):
        EVERY.append(only)
        return [Passage("p", "x", "staff only" if only is None else f"for {only.reader.tenant}")]


def test_a_named_source_that_keeps_to_readers_is_asked_for_one_and_remembers_whom_for(monkeypatch):
    monkeypatch.setitem(live_sources.LIVE_KINDS, "shelves", f"{__name__}:Shelves")
    merged = Merged((live_source("desk", {"kind": "shelves", "place": "x"}),))
    readers = [None, *(Scope(Reader(tenant)) for tenant in ("acme", "bolt", "acme"))]
    texts = [merged.ask("card", 1, only=only).passages[0].text for only in readers]
    assert texts == ["staff only", "for acme", "for bolt", "for acme"]
    assert readers[:3] == EVERY


def test_where_nobody_may_be_asked_nothing_is_found():
    found = Merged((gives("shop", "s0"),)).ask("lost card", 4, only=Scope(Reader("acme", ())))
    assert found.passages == ()


def test_wikipedia_is_public_and_a_wiki_of_ones_own_is_not():
    assert LiveSource("wikipedia", "wikipedia").public
    assert not LiveSource("ours", "wikipedia", {"endpoint": "http://wiki.local/api.php"}).public
