import time
from dataclasses import dataclass, field, replace

import pytest

from tailorbird.data.task import Data
from tailorbird.models.blank import Blank
from tailorbird.models.model import Wrapped
from tailorbird.records import Completion, Usage
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.metaprompt_search import (
    Budget,
    Choice,
    Space,
    instructions_for,
    keyword_descriptions,
    race,
    said_candidates,
    search,
    shown_candidates,
)
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_questions

DATA = tiny_data()
TASK = DATA.task
SPACE = Space(
    ("nearest", "balanced"),
    (5, 3, 0),
    ("nearest_last", "nearest_first"),
    ("chat", "plain"),
    (None, "Sort it."),
    (False, True),
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@dataclass(frozen=True)
class Prefers(Blank):
    """Right where the metaprompt is as it likes, as often as that says."""

    likes: object = None
    asked: list = field(default_factory=list)

    def answer(self, requests):
        return [self.one(request) for request in requests]

    def one(self, request):
        self.asked.append(request)
        place = next(n for n, e in enumerate(DATA.dev) if e.prompt == request.question)
        right = DATA.dev[place].completion
        wrong = next(label for label in TASK.labels if label != right)
        said = right if place / len(DATA.dev) < self.likes(request) else wrong
        chances = {label: 0.8 if label == said else 0.1 for label in TASK.labels}
        return Completion(
            said, "choice", Usage(100 + len(request.examples)), probabilities=chances, asked=request
        )


def build(choice):
    return FewShot(
        k=choice.k, select=choice.select, layout=choice.layout, instruction=choice.instruction, calibrate="none"
    ).apply(Blank(), DATA).rewrite  # fmt: skip


def test_the_race_finds_what_the_model_likes_and_asks_the_losers_less():
    model = Prefers(likes=lambda r: 0.9 if r.layout == "plain" else 0.3)
    many = replace(DATA, dev=DATA.dev * 3)
    found = race(model, many, build, list(shown_candidates(Choice(), SPACE)), Budget(1000))
    assert found[0].choice.layout == "plain"
    assert len(found[0].scores) > len(found[-1].scores) == 16
    assert all(len(tried.scores) in (16, 32, 36) for tried in found)


def test_the_second_race_goes_on_from_the_winner_of_the_first():
    model = Prefers(
        likes=lambda r: 0.4 + 0.3 * (r.layout == "plain") + 0.3 * (r.messages[0].content == "Sort it.")
    )
    found = search(model, DATA, build, SPACE, Budget(1000))
    assert (found[0].choice.layout, found[0].choice.instruction) == ("plain", "Sort it.")


def test_of_equals_the_cheaper_wins():
    candidates = [Choice(k=5), Choice(k=0), Choice(k=3)]
    found = race(Prefers(likes=lambda _: 0.5), DATA, build, candidates, Budget(1000))
    assert found[0].choice.k == 0
    assert found[0].tokens / len(found[0].scores) < found[-1].tokens / len(found[-1].scores)


def test_a_budget_of_tokens_is_kept_and_the_first_candidate_always_tried():
    model = Prefers(likes=lambda _: 0.5)
    budget = Budget(1000, tokens=3000)
    found = race(model, DATA, build, list(shown_candidates(Choice(), SPACE)), budget)
    assert budget.used_tokens <= 3000
    assert 1 <= len(found) <= 2
    least = race(model, DATA, build, list(shown_candidates(Choice(), SPACE)), Budget(1e-9))
    assert [tried.choice for tried in least] == [Choice()]


def test_every_candidate_differs_and_the_usual_comes_first():
    for candidates in (shown_candidates, said_candidates):
        found = list(candidates(Choice(), SPACE))
        assert found[0] == Choice()
        assert len(set(found)) == len(found) > 3
    assert sum(choice.k == 0 for choice in shown_candidates(Choice(), SPACE)) == 2  # one a layout


def test_a_candidate_that_does_not_fit_the_context_loses_and_says_why():
    long = Choice(k=0, instruction="sort " * 200)
    found = race(tiny_model(context=300), DATA, build, [long, Choice(k=0)], Budget(1000))
    assert found[0].choice == Choice(k=0)
    assert not found[0].failed
    assert "tokens of messages, but the model has room for" in found[-1].to_json()["failed"]


def test_tuning_keeps_what_is_given_and_writes_down_what_was_tried():
    technique = FewShot(k=1, layout="chat", tune=True, budget_s=1000, calibrate="none")
    made = technique.apply(Prefers(likes=lambda r: 0.9 if r.examples else 0.2), DATA).rewrite
    tried = made.measured["tried"]
    assert {row["k"] for row in tried} == {1}
    assert {row["layout"] for row in tried} == {"chat"}
    assert len({row["select"] for row in tried}) > 1
    assert made.measured["score"] == pytest.approx(tried[0]["score"], abs=0.02)


def test_how_far_draws_of_examples_differ_is_written_down():
    likes = {0: 0.2, 1: 0.9, 2: 0.5}
    draws = [
        FewShot(k=1, select="random", seed=n, calibrate="none").apply(Blank(), DATA).rewrite for n in likes
    ]
    first = {made.shown[0].id: likes[n] for n, made in enumerate(draws)}
    assert len(first) == 3
    model = Prefers(likes=lambda r: first.get(r.examples[0].id, 0.0) if r.examples else 0.0)
    space = {"select": "random", "k": 1, "layout": "chat", "instruction": "x"}
    made = FewShot(**space, tune=True, calibrate="none").apply(model, DATA).rewrite
    assert [row["seed"] for row in made.measured["draws"]] == [0, 1, 2]
    assert made.shown[0].id == draws[1].shown[0].id
    assert made.measured["draws"][1]["score"] == max(row["score"] for row in made.measured["draws"])


def test_free_answers_are_tuned_too():
    data = tiny_questions()
    made = FewShot(tune=True, budget_tokens=3000).apply(tiny_model(), data)
    assert isinstance(made, Wrapped)
    assert made.rewrite.measured["metric"] == "token_f1"
    assert made.rewrite.measured["tried"]


def test_labels_are_described_by_words_of_their_own():
    found = keyword_descriptions(DATA.train, TASK.labels)
    assert "bike" in found["repair"]
    assert all(len(words.split(", ")) <= 3 for words in found.values())
    assert not set(found["repair"].split(", ")) & set(found["order"].split(", "))


def test_the_tasks_own_words_are_the_first_instruction():
    assert instructions_for(DATA)[0] is None
    assert TASK.instruction not in instructions_for(DATA)
    many = replace(
        TASK, labels=tuple(f"l{n}" for n in range(60)), instruction="Name the category of the message."
    )
    assert any("l59" in (text or "") for text in instructions_for(Data(many, DATA.train)))


def test_what_making_the_first_one_takes_is_not_taken_for_what_answers_take():
    made = []

    def slow(choice):
        made.append(choice)
        time.sleep(1 if len(made) == 1 else 0)
        return build(choice)

    candidates = list(shown_candidates(Choice(), SPACE))[:3]
    found = race(Prefers(likes=lambda _: 0.5), DATA, slow, candidates, Budget(1.8))
    assert len(found) == len(candidates) == len(made)
