import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from scripted_arms import CLASSIFY, Builds, Scripted, classify_data

from tailorbird.evaluation.arms import Arm
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.evaluate import evaluate
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.predicting import MOST, measure_surprise
from tailorbird.evaluation.run_folder import read_arm
from tailorbird.models.model import Likelihood, Wrapped
from tailorbird.records import Completion

DATA = classify_data()
METRICS = default_metrics(DATA.task)


@dataclass
class Telling(Scripted):
    """Finds every text equally unlikely, and remembers which it was asked about."""

    heard: list[Any] = field(default_factory=list)

    def likelihood(self, expected):
        self.heard += expected
        size_bytes = sum(len(text) for _, text in expected)
        return Likelihood(2.0 * len(expected), len(expected), size_bytes, len(expected))


@dataclass(frozen=True)
class Louder:
    """Asks louder."""

    kind: ClassVar[str] = "louder"

    def __call__(self, request):
        return request

    def save(self, folder: Path) -> dict[str, Any]:
        return {}


def rows_of(model, num=200):
    data = classify_data(num)
    return evaluate(model, data.test, CLASSIFY, METRICS).rows


def test_at_most_so_many_examples_are_looked_at_evenly_spread():
    model = Telling(0.5)
    rows = rows_of(model)
    found = measure_surprise(Wrapped(model, Louder()), rows)
    assert found.examples == len(model.heard) == MOST
    assert [text for _, text in model.heard] == [rows[n * 200 // MOST].expected for n in range(MOST)]


def test_the_weights_see_what_they_saw_when_they_answered():
    model = Telling(0.5)
    rows = rows_of(model, 10)
    measure_surprise(model, rows)
    assert [request for request, _ in model.heard] == [row.completion.asked for row in rows]
    assert all(request.evidence for request, _ in model.heard)


def test_models_that_do_not_tell_are_not_measured():
    model = Scripted(0.5)
    assert measure_surprise(model, rows_of(model)) is None


def test_answers_that_were_no_choice_of_the_weights_are_left_out():
    class Refused(Telling):
        def answer(self, requests):
            asked = [replace(request, choices=("no",)) for request in requests]
            return [Completion("no", "choice", asked=request) for request in asked]

    model = Refused(0.5)
    assert measure_surprise(model, rows_of(model)) is None
    assert model.heard == []


def test_perplexity_is_kept_with_the_arm_and_read_again(tmp_path):
    builds = Builds()

    def run():
        arms = [builds.arm("base", lambda: Telling(0.3, "b")), Arm("other", lambda: Scripted(0.5, "o"))]
        return compare(arms, DATA, METRICS, primary="accuracy", folder=tmp_path)

    first, again = run(), run()
    assert builds.counts == {"base": 1}
    for found in (first, again):
        assert found.arm("base").secondary["perplexity"] == pytest.approx(math.e**2)
        assert "perplexity" not in found.arm("other").secondary
    assert read_arm(tmp_path, "base").surprise.examples == MOST
    record = json.loads((tmp_path / "arms" / "base" / "arm.json").read_text())
    assert record["surprise"]["tokens"] == MOST


def test_an_arm_that_was_kept_before_there_was_perplexity_is_still_read(tmp_path):
    compare([Arm("base", lambda: Telling(0.3))], DATA, METRICS, primary="accuracy", folder=tmp_path)
    path = tmp_path / "arms" / "base" / "arm.json"
    record = json.loads(path.read_text())
    del record["surprise"]
    path.write_text(json.dumps(record))
    assert read_arm(tmp_path, "base").surprise is None
