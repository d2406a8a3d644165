import json

import pytest
from endpoint import Endpoint, said

from tailorbird.data.formats import read_examples, write_examples
from tailorbird.errors import DataError, InputError, IntegrityError, NotFound
from tailorbird.knowledge_bases import KnowledgeBases
from tailorbird.knowledge_questions import KnowledgeQuestions
from tailorbird.records import Example
from tailorbird.sources.knowledge_base import read_knowledge_base
from tailorbird.sources.ranking import Ranking
from tailorbird.testing.sources import WordHash

WOODS, KINDS = ("oak", "elm", "ash", "yew", "fir"), ("door", "desk", "bowl", "gate")
THINGS = [f"{wood} {kind}" for wood in WOODS for kind in KINDS]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@pytest.fixture
def state(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for n, thing in enumerate(THINGS):
        (docs / f"{n:02d}.md").write_text(
            f"# The {thing}\n\nOne {thing} is sold for £{n + 10} in the shop. Nobody else sells the {thing} here. "
            f"It takes the joiner and his helper {n + 2} days to make the {thing} from the best of woods."
        )
    knowledge = KnowledgeBases(tmp_path / "state")
    knowledge.add("shop", str(docs), max_chars=200)
    knowledge.sync("shop")
    return tmp_path / "state"


@pytest.fixture
def asked(state):
    """Questions about half of the things by their first word too, on which words and meaning agree."""
    path = state / "asked.jsonl"
    write_examples(
        path,
        [
            Example.pair(f"What is the {t} sold for?", f"£{n + 10}", document=f"{n:02d}.md")
            for n, t in enumerate(THINGS)
        ],
    )
    return path


def test_questions_are_written_to_a_file_that_is_read_back_as_synthetic(state, tmp_path):
    out = tmp_path / "written.jsonl"
    written = KnowledgeQuestions(state).write("shop", out, 2)
    examples = read_examples(out)
    assert written.questions == len(examples) >= 20
    assert written.documents == len({e.document for e in examples})
    assert written.documents + written.without == len(THINGS)
    assert all(e.synthetic and e.span for e in examples)
    text = (tmp_path / "docs" / examples[0].document).read_text()
    assert text[slice(*examples[0].span)] == examples[0].completion
    with pytest.raises(InputError, match=r"written.jsonl: is there already. Name another file with --out"):
        KnowledgeQuestions(state).write("shop", out, 2)


def test_an_endpoint_may_write_the_questions(state, tmp_path):
    row = {"question": "Who makes it?", "answer": "the joiner and his helper"}
    server = Endpoint(lambda _: (200, said(json.dumps({"questions": [row]}))))
    few = tmp_path / "few"
    few.mkdir()
    for name in ("00.md", "01.md"):
        (few / name).write_text((tmp_path / "docs" / name).read_text())
    KnowledgeBases(state).add("few", str(few))
    KnowledgeBases(state).sync("few")
    with server.running() as url:
        written = KnowledgeQuestions(state).write("few", tmp_path / "w.jsonl", 1, f"{url}#strong", "")
    # All that it asked is the same: one is kept.
    assert written.questions == 1
    assert read_examples(tmp_path / "w.jsonl")[0].synthetic


def test_nothing_is_written_where_nothing_can_be_asked(state, tmp_path):
    KnowledgeBases(state).add("empty", str(tmp_path / "docs"))
    questions = KnowledgeQuestions(state)
    with pytest.raises(
        DataError, match=r"none of its 0 documents gave a question. Let an endpoint write them"
    ):
        questions.write("empty", tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()
    with pytest.raises(InputError, match="there is no folder"):
        questions.write("shop", tmp_path / "no" / "where.jsonl")
    with pytest.raises(InputError, match="--per-document 0: expected 1 or more"):
        questions.write("shop", tmp_path / "none.jsonl", 0)
    with pytest.raises(NotFound, match="nothing of that name was added here"):
        questions.write("other", tmp_path / "none.jsonl")


def test_a_ranking_is_changed_recorded_and_used(state):
    questions = KnowledgeQuestions(state)
    assert questions.rank("shop", {}) == Ranking()
    changed = questions.rank("shop", {"fusion": "ranks", "fusion_k": 10})
    assert changed == Ranking("ranks", fusion_k=10) == questions.rank("shop", {})
    with KnowledgeBases(state).read("shop").index() as index:
        assert index.ranking == changed
    for changes, error, message in (
        ({"rerank": 5, "reranker": "/no/where"}, NotFound, "there is no such folder"),
        ({"fusion": "votes"}, InputError, "expected one of scores, ranks"),
    ):
        with pytest.raises(error, match=message):
            questions.rank("shop", changes)
    assert questions.rank("shop", {}) == changed


def test_a_record_without_a_ranking_has_the_usual_one_and_a_wrong_one_is_damaged(state):
    record = state / "knowledge" / "shop" / "knowledge.json"
    facts = json.loads(record.read_text())
    ranking = facts.pop("ranking")
    record.write_text(json.dumps(facts))
    assert read_knowledge_base(record.parent).ranking == Ranking()
    for wrong in ({**ranking, "fusion": "votes"}, {"shine": 1}, 3):
        record.write_text(json.dumps({**facts, "ranking": wrong}))
        with pytest.raises(IntegrityError, match="no record of a knowledge base"):
            read_knowledge_base(record.parent)


def test_passages_of_other_lengths_are_tried_aside(state, asked):
    told = []
    found = KnowledgeQuestions(state).sweep("shop", asked, [400], rerank=False, on_setting=told.append)
    assert {setting.max_chars for setting in told} == {200, 400}
    assert len(found.rows) == 14
    assert found.held_out == 10
    (info,) = KnowledgeBases(state).list()
    assert info.base.max_chars == 200
    assert not list((state / "knowledge" / "shop").glob(".sweep*"))
    with pytest.raises(InputError, match="--max-chars 20: expected 50 or more"):
        KnowledgeQuestions(state).sweep("shop", asked, [20])


def test_tuning_records_what_held_out_questions_confirm(state, asked, monkeypatch):
    # The embedder finds all alike, so that only words tell and meaning alone is the worst to begin with.
    def alike(self, texts):
        vectors = embed(self, texts)
        vectors[:] = 1 / 8
        return vectors

    embed = WordHash.embed
    questions = KnowledgeQuestions(state)
    questions.rank("shop", {"words_weight": 0.0})
    with KnowledgeBases(state).read("shop").index() as index:
        assert index.ranking.words_weight == 0
    monkeypatch.setattr(WordHash, "embed", alike)
    monkeypatch.setattr(WordHash, "name", "alike")
    KnowledgeBases(state).sync("shop")
    found = questions.sweep("shop", asked, rerank=False)
    assert found.confirmed_better
    assert questions.rank("shop", {}).words_weight == 0  # not told to record it
    found = questions.sweep("shop", asked, rerank=False, tune=True)
    assert questions.rank("shop", {}) == found.chosen.ranking != Ranking(words_weight=0.0)
    again = questions.sweep("shop", asked, rerank=False, tune=True)
    assert again.chosen.ranking == again.present.ranking == found.chosen.ranking


def test_a_sweep_over_lengths_leaves_the_store_of_the_base_alone(state, asked):
    knowledge = KnowledgeBases(state)
    knowledge.set_search("shop", store="faiss")
    folder = knowledge.read("shop").folder
    opened = []
    before = (folder / "index.vectors" / "mark.json").read_bytes()
    KnowledgeQuestions(state).sweep("shop", asked, (400,), rerank=False, on_setting=opened.append)
    assert {setting.max_chars for setting in opened} == {200, 400}
    assert (folder / "index.vectors" / "mark.json").read_bytes() == before
    assert not list(folder.glob(".sweep*"))


def test_what_is_swept_aside_is_searched_in_memory(state, monkeypatch):
    from tailorbird import knowledge_questions
    from tailorbird.evaluation.sweeping import Setting

    base = KnowledgeBases(state).read("shop")
    with knowledge_questions._Indexes(base) as indexes:
        aside = indexes.of(Setting(400, base.ranking))
        assert (aside.settings.store, aside.settings.words) == ("numpy", "fts5")
