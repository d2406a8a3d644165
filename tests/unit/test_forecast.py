import json
import math

import pytest

from tailorbird.cli.compare_plan import show_plan
from tailorbird.comparisons import Comparisons
from tailorbird.errors import NotFound, RequestError
from tailorbird.forecast import PROBED, Forecast, Speed, _computed, forecast
from tailorbird.planning import Flags
from tailorbird.recipe_file import RecipeFile
from tailorbird.testing.tiny import tiny_data, tiny_model
from tailorbird.workbench import Workbench

PRICE_PER_HOUR = 0.36
ARMS = ["majority", "base", "few_shot", "fine_tune", "few_shot+fine_tune", "from_scratch", "knowledge"]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan over 80 messages, whose base is a tiny model."""
    monkeypatch.setattr("tailorbird.forecast.open_reference", lambda *_: Opened(tiny_model(context=512)))
    rows = [{"prompt": f"message number {i}", "completion": "ab"[i % 2] * 3} for i in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("# One\n\nA document.")
    flags = Flags(examples=tmp_path / "rows.jsonl", documents=tmp_path / "documents", arms=ARMS)
    return Workbench(tmp_path).comparisons.plan(flags)


class Opened:
    def __init__(self, model):
        self.model = model


def by_arm(found):
    return {each.arm: each for each in found}


def test_what_trains_and_what_reads_more_takes_longer(plan, tmp_path):
    found = by_arm(forecast(tmp_path / ".tailorbird", plan, PRICE_PER_HOUR))
    assert list(found) == ARMS
    assert found["majority"].seconds <= 2
    assert found["base"].make_s == found["few_shot"].make_s == 0
    assert found["few_shot+fine_tune"].make_s > found["fine_tune"].make_s > 0
    assert found["few_shot"].answers_s >= found["base"].answers_s > 0
    assert found["from_scratch"].make_s > 0
    for each in found.values():
        assert each.cost == pytest.approx(each.seconds * PRICE_PER_HOUR / 3600)
        assert not each.known


def test_tokens_of_prompts_examples_and_passages_are_counted(plan):
    speed = Speed(0.5, 0.01, 20.0, 10.0, 2.0, 1_000_000)
    file = RecipeFile(settings={"few_shot": {"k": 3}, "fine_tune": {"epochs": 2, "max_examples": 40}})
    answers = 20 + 20 + 1.5 * 13
    base = _computed(file.arm("base"), plan, speed, PRICE_PER_HOUR)
    assert base.answers_s == pytest.approx(answers * (0.5 + 0.2))
    few_shot = _computed(file.arm("few_shot"), plan, speed, PRICE_PER_HOUR)
    assert few_shot.answers_s == pytest.approx(answers * (0.5 + 0.5))
    knowledge = _computed(file.arm("knowledge"), plan, speed, PRICE_PER_HOUR)
    assert knowledge.answers_s == pytest.approx(answers * (0.5 + 0.2 + 0.01 * 3 * 600 / 4))
    tuned = _computed(file.arm("few_shot+fine_tune"), plan, speed, PRICE_PER_HOUR)
    assert tuned.make_s == pytest.approx(3 * 0.01 * 40 * 2 * (50 + 2))


def test_what_an_earlier_comparison_measured_is_scaled_to_this_ones_examples(plan, tmp_path):
    state = tmp_path / ".tailorbird"
    record = {
        "reproduce": {"base": "starter"},
        "data": {"num_train": 30},
        "arms": [
            {"name": "base", "score": 0.5, "train_s": 1.0, "latency_p50_s": 0.3, "cost_per_1k": 0.1},
            {"name": "fine_tune", "score": 0.5, "train_s": 60.0, "latency_p50_s": 0.3, "cost_per_1k": 0.1},
            {"name": "few_shot", "score": None, "train_s": 1.0, "latency_p50_s": None, "cost_per_1k": None},
        ],
    }
    for name, base in (("one-1", "starter"), ("other-2", "hf:another/base")):
        folder = state / "runs" / name
        folder.mkdir(parents=True)
        content = {**record, "reproduce": {"base": base}}
        (folder / "comparison.json").write_text(
            json.dumps(content if base == "starter" else {**content, "arms": []})
        )
    (state / "runs" / "broken-3").mkdir()
    (state / "runs" / "broken-3" / "comparison.json").write_text("{")
    found = by_arm(forecast(state, plan, PRICE_PER_HOUR))
    assert found["fine_tune"].known
    assert found["fine_tune"].make_s == pytest.approx(60.0 * 60 / 30)
    assert found["fine_tune"].answers_s == pytest.approx((40 + 19.5) * 0.3 / 1.5)
    assert not found["few_shot"].known


def test_of_an_endpoint_the_price_of_its_tokens_is_foreseen_and_nothing_is_asked(tmp_path):
    data = tiny_data()
    rows = [
        {"prompt": e.prompt, "completion": e.completion} for e in (*data.train, *data.dev, *data.test)
    ] * 1
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tailor.toml").write_text(
        'base = "http://127.0.0.1:9/v1#m"\nexamples = "rows.jsonl"\narms = ["majority", "base", "few_shot"]\n'
        "[price]\ninput = 10.0\noutput = 20.0\n"
    )
    comparisons: Comparisons = Workbench(tmp_path).comparisons
    plan = comparisons.plan()
    found = by_arm(comparisons.forecast(plan))
    answers = len(plan.data.dev) + len(plan.data.test) + 1.5 * min(13, len(plan.data.test))
    assert found["base"].seconds == 0
    assert not found["base"].timed
    assert found["few_shot"].cost > found["base"].cost > answers * 10 / 1e6
    assert math.isfinite(found["few_shot"].cost)


def test_an_arm_that_is_there_already_takes_no_time(plan, tmp_path):
    (plan.folder / "arms" / "fine_tune").mkdir(parents=True)
    (plan.folder / "arms" / "fine_tune" / "arm.json").write_text("{}")
    assert by_arm(forecast(tmp_path / ".tailorbird", plan, PRICE_PER_HOUR))["fine_tune"].seconds == 0


def test_few_requests_are_asked_to_foresee_all(plan, tmp_path, monkeypatch):
    asked = []
    model = tiny_model(context=512)

    class Counting:
        name, num_parameters = model.name, model.num_parameters

        def answer(self, requests):
            asked.append(len(requests))
            return model.answer(requests)

    monkeypatch.setattr("tailorbird.forecast.open_reference", lambda *_: Opened(Counting()))
    forecast(tmp_path / ".tailorbird", plan, PRICE_PER_HOUR)
    assert asked == [2, PROBED, PROBED, PROBED]


def test_a_base_that_can_not_answer_is_its_arms_affair_and_one_that_is_not_there_is_told(
    plan, tmp_path, monkeypatch
):
    def failing(*_):
        raise RequestError("the prompt has 9,000 tokens, and 512 fit.")

    monkeypatch.setattr("tailorbird.forecast.open_reference", failing)
    found = by_arm(forecast(tmp_path / ".tailorbird", plan, PRICE_PER_HOUR))
    assert [name for name, each in found.items() if each.timed] == ["majority"]

    def missing(*_):
        raise NotFound("model 'nowhere': no such folder.")

    monkeypatch.setattr("tailorbird.forecast.open_reference", missing)
    with pytest.raises(NotFound, match="nowhere"):
        forecast(tmp_path / ".tailorbird", plan, PRICE_PER_HOUR)


def test_what_can_not_be_timed_is_said(capsys, plan, tmp_path):
    expected = [
        Forecast("majority", 2.0, 0.0, 0.0),
        Forecast("base", 0.0, 0.0, 0.25, timed=False),
    ]
    show_plan(plan, expected)
    out = capsys.readouterr().out
    assert (
        "about 2 s at most, $0.25: majority 2 s; without base, whose answers can't be timed beforehand" in out
    )
