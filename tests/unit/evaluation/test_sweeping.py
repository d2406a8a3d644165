import json
from dataclasses import replace

import pytest

from tailorbird.errors import DataError
from tailorbird.evaluation.sweeping import LEAST_QUESTIONS, Setting, rankings_to_try, sweep
from tailorbird.records import Document, Example
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.ranking import Ranking
from tailorbird.testing.sources import WordHash

NAMES = [f"{left}{right}" for left in ("ash", "bay", "cob", "dun", "elm") for right in "abcdefgh"]
WORDS_ONLY = Ranking(words_weight=1, meaning_weight=0)


class Misleading(WordHash):
    """An embedder that finds everything alike, so that meaning tells nothing."""

    def embed(self, texts):
        vectors = super().embed(texts)
        vectors[:] = 1 / 8
        return vectors


class Listing:
    name, complete = "listing", True

    def documents(self):
        return (Document(f"{name}.md", f"The {name} costs {i} pounds.", name) for i, name in enumerate(NAMES))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with KnowledgeIndex(tmp_path_factory.mktemp("sweep") / "index.db", Misleading()) as index:
        index.sync(Listing())
        yield index


def questions():
    return [Example.pair(f"What of {n}?", f"{i} pounds", document=f"{n}.md") for i, n in enumerate(NAMES)]


def opened(index):
    def of(setting):
        index.ranking = setting.ranking
        return index

    return of


def test_the_best_setting_is_chosen_on_one_half_and_confirmed_on_the_other(index):
    settings = [Setting(800, Ranking(words_weight=0)), Setting(800, WORDS_ONLY)]
    told = []
    found = sweep(questions(), opened(index), settings, told.append)
    assert told == settings
    assert found.chosen == settings[1]
    assert found.questions == found.held_out == 20
    assert [row.tied for row in found.rows] == [False, True]
    assert found.rows[0].difference.high < 0
    assert found.confirmed.mean == 1
    assert found.confirmed_better
    assert found.gain.low > 0
    assert found.sentence.startswith("best: 800 characters, scores, 0 % meaning; it is told from all others.")
    assert "On 20 questions held out: 100.0 (" in found.sentence
    assert json.loads(json.dumps(found.to_json()))["chosen"]["meaning_weight"] == 0
    assert found.evidence[0].document.mean == 1
    assert found.evidence[0].answer.mean == 1


def test_the_present_setting_is_kept_where_nothing_can_be_told_from_it(index):
    settings = [Setting(800, WORDS_ONLY), Setting(800, replace(WORDS_ONLY, words_weight=2.0))]
    found = sweep(questions(), opened(index), settings)
    assert found.chosen == settings[0]
    assert not found.confirmed_better
    assert found.sentence.startswith("nothing beats what is set now; 1 other can't be told from the best.")


def test_synthetic_questions_help_to_choose_and_never_confirm(index):
    written = [replace(e, synthetic=True) for e in questions()[20:]]
    found = sweep([*questions()[:20], *written], opened(index), [Setting(800, WORDS_ONLY)])
    assert (found.questions, found.held_out, found.synthetic) == (30, 10, 20)


def test_too_few_questions_are_refused(index):
    written = [replace(e, synthetic=True) for e in questions()]
    for examples in (questions()[: LEAST_QUESTIONS - 1], written):
        with pytest.raises(DataError, match="a sweep needs at least 20, half of them to choose"):
            sweep(examples, opened(index), [Setting(800, WORDS_ONLY)])


def test_the_present_ranking_is_tried_first_and_no_ranking_twice():
    tried = rankings_to_try(Ranking())
    assert tried[0] == Ranking()
    assert [r.rerank for r in tried] == [0] * 7 + [10]
    assert (
        len(
            [r for r in tried if r.fusion == "scores" and r.words_weight == r.meaning_weight and not r.rerank]
        )
        == 1
    )
    assert all(not r.rerank for r in rankings_to_try(Ranking(), rerank=False))
    mine = Ranking(rerank=5, reranker="hf:org/name")
    assert rankings_to_try(mine)[0] == mine
    assert Setting(600, mine).label == "600 characters, scores, 50 % meaning, rerank 5 by hf:org/name"
