import json
from dataclasses import dataclass, field, replace

import pytest

from tailorbird.data.task import Data, Task
from tailorbird.errors import DataError, EndpointError, InputError, NotFound, RecipeError, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.models.model import as_seen_by_weights
from tailorbird.records import NOT_IN_DOCUMENTS, Example, Message, Passage, Request
from tailorbird.sources.live_sources import LiveSource
from tailorbird.sources.merged import Merged
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.relevance import UNCALIBRATED_THRESHOLD, fit_threshold, synced_index
from tailorbird.sources.search_api import SearchApi
from tailorbird.sources.wikipedia import Wikipedia
from tailorbird.techniques.knowledge import Knowledge
from tailorbird.techniques.lookup import INSTRUCTION, Lookup, load_lookup
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_documents, tiny_questions


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", lambda: WordHash(512))


@pytest.fixture
def documents(tmp_path):
    return tiny_documents(tmp_path / "documents")


@dataclass(frozen=True)
class Shelf:
    """A source that finds what it was given, with the scores it was given."""

    scores: tuple[float, ...] = (0.9, 0.5)
    asked: list = field(default_factory=list, compare=False)

    def search(self, query, k):
        self.asked.append((query, k))
        return [Passage(f"p{n}", "d.md", f"passage {n}", score=s) for n, s in enumerate(self.scores)][:k]


FREE = Request((Message("system", "Be brief."), Message("user", "How long?")))
CLOSED = replace(FREE, choices=("a", "b"))


def test_the_best_passages_become_the_evidence_in_front_of_the_question(documents):
    data = tiny_questions(documents)
    model = Knowledge(k=2, threshold=0.1).apply(Blank(), data)
    seen = as_seen_by_weights(model, data.task.request([Message("user", "How long does a repair take?")]))
    assert 1 <= len(seen.evidence) <= 2
    assert "three days" in seen.evidence[0].text
    assert seen.evidence[0].document == "repairs.md"


def test_evidence_that_is_there_already_stays_in_front():
    given = Passage("given", "x", "given")
    seen = Lookup(Shelf(), 1, 0.0)(replace(FREE, evidence=(given,)))
    assert [p.id for p in seen.evidence] == ["given", "p0"]


@pytest.mark.parametrize("scores", [(), (0.3, 0.2)], ids=["nothing_found", "nothing_similar"])
def test_where_the_documents_do_not_tell_that_is_the_only_answer(scores):
    seen = Lookup(Shelf(scores), 2, 0.4)(FREE)
    assert (seen.choices, seen.evidence) == ((NOT_IN_DOCUMENTS,), ())
    assert Blank().answer([seen])[0].text == NOT_IN_DOCUMENTS


@pytest.mark.parametrize("scores", [(), (0.3, 0.2)])
def test_a_closed_set_is_never_narrowed(scores):
    seen = Lookup(Shelf(scores), 2, 0.4)(CLOSED)
    assert seen.choices == ("a", "b")
    assert seen.messages == CLOSED.messages


def test_a_similarity_that_reaches_the_threshold_is_enough():
    assert Lookup(Shelf((0.4,)), 2, 0.4)(FREE).choices is None
    assert Lookup(Shelf((0.1, 0.4)), 2, 0.4)(FREE).choices is None


def test_the_instruction_takes_the_place_of_the_tasks_for_free_answers_only():
    def system(lookup, request):
        return [m.content for m in lookup(request).messages if m.role == "system"]

    assert system(Lookup(Shelf(), 1, 0.0), FREE) == [INSTRUCTION]
    assert system(Lookup(Shelf(), 1, 0.0, None), FREE) == ["Be brief."]
    assert system(Lookup(Shelf(), 1, 0.0), CLOSED) == ["Be brief."]


def test_a_question_that_stands_alone_is_looked_up_alone():
    shelf = Shelf()
    turns = (Message("user", "What costs a tandem?"), Message("assistant", "40 euros."))
    asked = "How many days may a customer keep the loaned bicycle?"
    Lookup(shelf, 2, 0.0)(Request((*turns, Message("user", asked))))
    assert [query for query, _ in shelf.asked] == [asked]


def test_a_question_that_leans_on_the_conversation_is_looked_up_with_it():
    shelf = Shelf((0.9, 0.5, 0.4))
    turns = (
        Message("system", "s"),
        Message("user", "Which van is electric?"),
        Message("assistant", "The Dunnock."),
    )
    seen = Lookup(shelf, 2, 0.0)(Request((*turns, Message("user", "How many seats has it?"))))
    assert [query for query, _ in shelf.asked] == [
        "Which van is electric?\nHow many seats has it?",
        "Which van is electric?\nThe Dunnock.\nHow many seats has it?",
    ]
    assert [p.id for p in seen.evidence] == ["p0", "p1"]


def test_the_threshold_is_fitted_between_questions_with_and_without_an_answer(documents):
    data = tiny_questions(documents)
    model = Knowledge(k=2).apply(Blank(), data)
    for example in data.train:
        refuses = as_seen_by_weights(model, data.task.ask(example)).choices == (NOT_IN_DOCUMENTS,)
        assert refuses == (example.completion == NOT_IN_DOCUMENTS), example.prompt
    best = [max(p.score for p in model.rewrite.source.search(e.prompt, 2)) for e in data.train]
    there = [b for b, e in zip(best, data.train, strict=True) if e.completion != NOT_IN_DOCUMENTS]
    absent = [b for b, e in zip(best, data.train, strict=True) if e.completion == NOT_IN_DOCUMENTS]
    assert max(absent) < model.rewrite.threshold <= min(there)


def test_a_threshold_that_is_given_stays(documents):
    assert Knowledge(threshold=0.77).apply(Blank(), tiny_questions(documents)).rewrite.threshold == 0.77


def test_a_live_source_is_asked_and_needs_neither_documents_nor_threshold():
    model = Knowledge(source=Shelf((-0.5,))).apply(Blank(), tiny_data())
    assert [p.id for p in as_seen_by_weights(model, FREE).evidence] == ["p0"]


def test_a_folder_of_the_techniques_own_goes_before_the_datas(tmp_path, documents):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.md").write_text("A repair takes nine weeks.")
    model = Knowledge(documents=tmp_path / "own", threshold=0.0).apply(Blank(), tiny_questions(documents))
    seen = as_seen_by_weights(model, Request((Message("user", "How long does a repair take?"),)))
    assert [p.text for p in seen.evidence] == ["A repair takes nine weeks."]


def test_a_saved_lookup_answers_from_what_was_measured_even_if_the_documents_change(tmp_path, documents):
    data = tiny_questions(documents)
    rewrite = Knowledge(k=1).apply(Blank(), data).rewrite
    request = data.task.ask(data.train[0])
    expected = rewrite(request)
    (tmp_path / "saved").mkdir()
    settings = rewrite.save(tmp_path / "saved")
    (documents / "repairs.md").write_text("# Repairs\n\nNothing is repaired any more.")
    Knowledge(k=1).apply(Blank(), data)
    assert load_lookup(tmp_path / "saved", settings)(request) == expected


def test_a_saved_lookup_ranks_as_it_did_and_one_that_says_nothing_by_ranks(tmp_path, documents):
    source = synced_index(documents, 300)
    source.ranking = Ranking(words_weight=2.0)
    settings = Lookup(source, 2, 0.1).save(tmp_path / "saved")
    assert load_lookup(tmp_path / "saved", settings).source.ranking == Ranking(words_weight=2.0)
    del settings["ranking"]
    assert load_lookup(tmp_path / "saved", settings).source.ranking == Ranking("ranks")


def test_the_first_passages_are_read_again_where_that_is_asked(documents):
    data = tiny_questions(documents)
    (lookup,) = [Knowledge(k=1, rerank=0).apply(Blank(), data).rewrite]
    assert lookup.source.reranker is None
    with pytest.raises(NotFound, match="reranker '/no/where': there is no such folder"):
        Knowledge(k=1, rerank=5, reranker="/no/where").apply(Blank(), data)
    with pytest.raises(InputError, match="rerank is 900; expected 0 to 100"):
        Knowledge(k=1, rerank=900).apply(Blank(), data)


def test_a_saved_wikipedia_comes_back(tmp_path):
    source = Wikipedia(language="nl", timeout_s=3.0)
    loaded = load_lookup(tmp_path, Lookup(source, 2, -1.0, None).save(tmp_path))
    assert (loaded.source, loaded.k, loaded.threshold, loaded.instruction) == (source, 2, -1.0, None)


def test_a_saved_source_that_is_not_installed_is_unsupported_and_not_another_source(tmp_path):
    settings = Lookup(Shelf(), 1, 0.0).save(tmp_path)
    with pytest.raises(
        Unsupported, match=r"live source 'shelf', which is not installed.*Install the plug-in"
    ):
        load_lookup(tmp_path, settings)


def test_a_source_that_is_no_dataclass_cannot_be_saved(tmp_path):
    class Bare:
        def search(self, query, k):
            return []

    with pytest.raises(
        RecipeError, match=r"source Bare cannot be saved.*frozen dataclass.*'tailorbird.sources'"
    ):
        Lookup(Bare(), 1, 0.0).save(tmp_path)


@pytest.mark.parametrize("k", [0, 51])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(RecipeError, match=rf"knowledge: k is {k}; expected 1 to 50 passages"):
        Knowledge(k=k)


def test_without_documents_there_is_no_knowledge():
    with pytest.raises(DataError, match=r"there are no documents. Give a folder with --documents DIR"):
        Knowledge().apply(Blank(), tiny_data())


def test_an_empty_folder_is_no_knowledge(tmp_path):
    (tmp_path / "empty").mkdir()
    data = Data(Task("answer", "x"), (Example.pair("a", "b"),), documents=tmp_path / "empty")
    with pytest.raises(DataError, match=r"no readable document in .*empty. The folder is empty"):
        Knowledge().apply(Blank(), data)


# -- live sources by name --------------------------------------------------------------------------


@dataclass(frozen=True)
class Desk:
    """A live source that finds one text, or fails."""

    text: str = "A repair takes three days, says the desk."
    fails: bool = False

    def search(self, query, k):
        if self.fails:
            raise EndpointError("the desk is closed.")
        return [Passage("d1", "desk", self.text)][:k]


@pytest.fixture
def desk(monkeypatch):
    from tailorbird.sources import live_sources

    monkeypatch.setattr(live_sources, "LIVE_KINDS", {**live_sources.LIVE_KINDS, "desk": f"{__name__}:Desk"})
    live_sources.forget_answers()
    yield lambda **settings: LiveSource("desk", "desk", settings)
    live_sources.forget_answers()


REPAIR = Request((Message("user", "How long does a repair take?"),))


def test_documents_and_sources_are_asked_together_under_one_threshold(documents, desk):
    data = tiny_questions(documents)
    alone = Knowledge(k=2).apply(Blank(), data).rewrite
    both = Knowledge(k=2, sources=(desk(),)).apply(Blank(), data).rewrite
    assert both.threshold == fit_threshold(alone.source, data.train, 2)
    assert both.relevance is None
    seen = both(REPAIR)
    assert [p.source for p in seen.evidence] == ["", "desk"]
    assert seen.lacking == ()
    assert all(p.score >= both.threshold for p in seen.evidence)


def test_what_a_source_finds_may_have_nothing_to_do_with_the_question(desk):
    lookup = Knowledge(k=2, sources=(desk(text="Bananas are yellow."),)).apply(Blank(), tiny_data()).rewrite
    assert lookup.threshold == UNCALIBRATED_THRESHOLD
    assert lookup(REPAIR).choices == (NOT_IN_DOCUMENTS,)


def test_a_source_that_fails_stands_in_the_request_and_beside_the_answer(documents, desk):
    model = Knowledge(k=2, threshold=0.0, sources=(desk(fails=True),)).apply(
        Blank(), tiny_questions(documents)
    )
    completion = model.answer([REPAIR])[0]
    assert completion.asked.evidence
    assert completion.left_out == ("source desk: the desk is closed.",)
    refused = Knowledge(threshold=1.1, sources=(desk(fails=True),)).apply(Blank(), tiny_questions(documents))
    [answer] = refused.answer([REPAIR])
    assert (answer.text, answer.left_out) == (NOT_IN_DOCUMENTS, ("source desk: the desk is closed.",))


def test_if_every_source_fails_there_is_no_answer(desk):
    model = Knowledge(sources=(desk(fails=True),)).apply(Blank(), tiny_data())
    with pytest.raises(
        EndpointError, match=r"none of the sources could be asked. source desk: the desk is closed"
    ):
        model.answer([REPAIR])


@pytest.mark.parametrize("with_documents", [True, False], ids=["documents", "alone"])
def test_a_saved_lookup_asks_its_sources_again(tmp_path, documents, desk, with_documents):
    data = tiny_questions(documents) if with_documents else tiny_data()
    rewrite = Knowledge(k=2, sources=(desk(text="It takes a week."),)).apply(Blank(), data).rewrite
    (tmp_path / "saved").mkdir()
    settings = json.loads(json.dumps(rewrite.save(tmp_path / "saved")))
    assert (tmp_path / "saved" / "index.db").is_file() == with_documents
    loaded = load_lookup(tmp_path / "saved", settings)
    assert isinstance(loaded.source, Merged)
    assert loaded.source.live == rewrite.source.live
    assert loaded(REPAIR) == rewrite(REPAIR)


def test_a_saved_search_api_comes_back(tmp_path):
    source = SearchApi("https://shop.example/{query}", text=("a", "b"), headers={"X-Key": "$KEY"})
    settings = json.loads(json.dumps(Lookup(source, 2, -1.0, None).save(tmp_path)))
    assert settings["live"]["source"] == "search_api"
    assert load_lookup(tmp_path, settings).source == source


def test_merged_sources_of_a_programs_own_cannot_be_saved(tmp_path):
    with pytest.raises(
        RecipeError, match=r"Shelf is merged but no LiveSource.*Name it in Knowledge\(sources"
    ):
        Lookup(Merged((NamedShelf(),)), 1, 0.0).save(tmp_path)


@dataclass(frozen=True)
class NamedShelf(Shelf):
    name: str = "shelf"
    timeout_s: float = 1.0


def test_two_sources_of_one_name_are_refused(desk):
    with pytest.raises(RecipeError, match="the source 'desk' is named twice"):
        Knowledge(sources=(desk(), desk()))


def test_a_reranker_that_would_read_nothing_is_refused():
    for rerank in (None, 0):
        with pytest.raises(RecipeError, match=r"reranker is 'hf:a/b', but rerank is .*it would read nothing"):
            Knowledge(reranker="hf:a/b", rerank=rerank)


def test_reranking_without_documents_is_refused():
    source = LiveSource("w", "wikipedia", {})
    with pytest.raises(
        RecipeError, match="rerank is 5, but there are no documents whose passages would be read"
    ):
        Knowledge(sources=(source,), rerank=5).apply(
            Blank(), Data(Task("answer", "x"), (Example.pair("a", "b"),))
        )
