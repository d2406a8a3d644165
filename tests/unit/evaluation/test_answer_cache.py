import contextlib
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from scripted_arms import Scripted, classify_data

from tailorbird.evaluation import answer_cache
from tailorbird.evaluation.answer_cache import AnswerCache
from tailorbird.evaluation.arms import Arm, Made, TokenPrice
from tailorbird.evaluation.budget import Budget
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import default_metrics

DATA = classify_data()
METRICS = default_metrics(DATA.task)
REQUESTS = [DATA.task.ask(example) for example in DATA.test]


def arm(model, key="made of this", **settings):
    return Arm("few_shot", lambda: model, key, make=lambda: Made(1.5, key), **settings)


def judged(model, data, cache, key="made of this", **settings):
    return compare([arm(model, key)], data, METRICS, primary="accuracy", cache=cache, **settings)


def test_answers_come_back_as_they_were_and_only_for_the_same_model_and_request(tmp_path):
    cache = AnswerCache(tmp_path / "state" / "answers.db")
    answers = Scripted(0.5).answer(REQUESTS[:3])
    cache.keep("m", REQUESTS[:3], answers)
    again = AnswerCache(tmp_path / "state" / "answers.db")
    assert again.known("m", REQUESTS[:4]) == [*answers, None]
    assert again.known("n", REQUESTS[:1]) == [None]
    hotter = replace(REQUESTS[0], sampling=replace(REQUESTS[0].sampling, temperature=0.7))
    assert again.known("m", [hotter]) == [None]


def test_the_same_model_is_asked_nothing_twice_by_a_later_comparison(tmp_path):
    cache = AnswerCache(tmp_path / "answers.db")
    first, second = Scripted(0.7), Scripted(0.7)
    small = replace(DATA, test=DATA.test[:40])
    judged(first, small, cache)
    found = judged(second, DATA, cache)
    assert sum(first.calls) == 60 + 40 + 13
    assert sum(second.calls) == 80
    assert (
        found.to_json()["arms"] == judged(Scripted(0.7), DATA, None).to_json()["arms"]
        or found.arm("few_shot").score == judged(Scripted(0.7), DATA, None).arm("few_shot").score
    )


def test_another_model_is_asked_everything(tmp_path):
    cache = AnswerCache(tmp_path / "answers.db")
    judged(Scripted(0.7), DATA, cache)
    other = Scripted(0.7)
    judged(other, DATA, cache, key="made of that")
    assert sum(other.calls) == 60 + 120 + 13


def test_answers_given_before_a_run_was_cut_short_are_not_asked_for_again(tmp_path):
    class Unplugged(Scripted):
        def answer(self, requests):
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().answer(requests)

    cache = AnswerCache(tmp_path / "answers.db")
    with pytest.raises(KeyboardInterrupt):
        judged(Unplugged(0.7), DATA, cache)
    resumed = Scripted(0.7)
    found = judged(resumed, DATA, cache)
    assert sum(resumed.calls) == 60 + 120 + 13 - 92
    assert found.arm("few_shot").train_s == 1.5


def test_a_model_without_a_key_is_asked_every_time(tmp_path):
    cache = AnswerCache(tmp_path / "answers.db")
    for model in (Scripted(0.7), Scripted(0.7)):
        judged(model, DATA, cache, key="")
        assert sum(model.calls) == 60 + 120 + 13


def test_answers_that_are_known_cost_nothing_of_the_budget(tmp_path):
    cache = AnswerCache(tmp_path / "answers.db")
    price = TokenPrice(1.0, 2.0)
    spent = []
    for _ in range(2):
        budget = Budget(usd=1.0)
        compare(
            [arm(Scripted(0.7), price=price)], DATA, METRICS, primary="accuracy", cache=cache, budget=budget
        )
        spent.append(budget.paid)
    assert spent == [pytest.approx(180 * (14 + 2 * 2) / 1e6), 0.0]


def test_money_that_is_spent_stops_an_arm(tmp_path):
    price = TokenPrice(1000.0, 2000.0)
    found = compare(
        [arm(Scripted(0.7), price=price)], DATA, METRICS, primary="accuracy", budget=Budget(usd=1.2)
    )
    assert found.arm("few_shot").stopped_why == "The budget was used up while it was measured."


def test_a_damaged_file_is_set_aside(tmp_path):
    path = tmp_path / "answers.db"
    path.write_bytes(b"not a database at all" * 100)
    cache = AnswerCache(path)
    cache.keep("m", REQUESTS[:1], Scripted(0.5).answer(REQUESTS[:1]))
    assert cache.known("m", REQUESTS[:1]) != [None]
    assert (tmp_path / "answers.damaged").exists()


def test_the_oldest_answers_go_when_the_file_is_large(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path / "answers.db")
    cache.keep("m", REQUESTS, Scripted(0.5).answer(REQUESTS))
    monkeypatch.setattr(answer_cache, "LARGEST_BYTES", 1000)
    found = AnswerCache(cache.path).known("m", REQUESTS)
    assert [answer is None for answer in found] == [True] * 60 + [False] * 60


def test_several_processes_may_keep_answers_at_once(tmp_path):
    script = """
import sys
from pathlib import Path
from scripted_arms import *
from tailorbird.evaluation.answer_cache import AnswerCache
data = classify_data()
requests = [data.task.ask(e) for e in data.test]
for round in range(10):
    cache = AnswerCache(Path(sys.argv[1]))
    cache.keep(sys.argv[2] + str(round), requests[:5], Scripted(0.5).answer(requests[:5]))
"""
    import os
    from pathlib import Path

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    path = tmp_path / "answers.db"
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name], env=environment) for name in "abc"
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    cache = AnswerCache(path)
    for name in "abc":
        for number in range(10):
            assert None not in cache.known(name + str(number), REQUESTS[:5])


def test_answers_of_the_version_before_are_kept(tmp_path):
    path, (one, other) = tmp_path / "answers.db", Scripted(0.5).answer(REQUESTS[:2])
    AnswerCache(path).keep("m", REQUESTS[:1], [one])
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            "ALTER TABLE answers RENAME TO kept;"
            "CREATE TABLE answers (key TEXT PRIMARY KEY, day INTEGER NOT NULL, completion BLOB NOT NULL);"
            "INSERT INTO answers SELECT key, 20785, completion FROM kept;"
            "DROP TABLE kept"
        )
    cache = AnswerCache(path)
    cache.keep("m", REQUESTS[1:2], [other])
    assert cache.known("m", REQUESTS[:2]) == [one, other]
