import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_arms import LABELS, Builds, Failing, Scripted, classify_data, messages

from tailorbird.data.task import Data, Task
from tailorbird.errors import DataError, IntegrityError, NotFound, RecipeError
from tailorbird.evaluation.arms import Arm, ArmFinished, ArmStarted, StageProgress, TokenPrice, VerdictSoFar
from tailorbird.evaluation.budget import Budget
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.comparison import Comparison, terminal_table
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.run_folder import data_fingerprint, load_run, read_arm
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example

DATA = classify_data()
METRICS = default_metrics(DATA.task)
TIMINGS = ("latency_p50_s", "latency_p95_s", "train_s")


def three_arms(builds):
    return [
        builds.arm("base", lambda: Scripted(0.3, "b")),
        builds.arm("tfidf_linear", lambda: Scripted(0.6, "t"), floor=True),
        builds.arm("few_shot+fine_tune", lambda: Scripted(0.95, "f"), key="v1"),
    ]


def timeless(comparison):
    found = comparison.to_json()
    return {**found, "arms": [{k: v for k, v in arm.items() if k not in TIMINGS} for arm in found["arms"]]}


def test_the_json_holds_what_scripts_rely_on(tmp_path):
    found = compare(three_arms(Builds()), DATA, METRICS, folder=tmp_path, primary="accuracy")
    row = json.loads((tmp_path / "comparison.json").read_text())
    assert row == json.loads(json.dumps(found.to_json()))
    assert {"task", "metric", "num_test", "arms", "verdict", "reproduce"} <= row.keys()
    assert (row["task"], row["metric"], row["num_test"]) == ("classify", "accuracy", 120)
    contract = "name score low high p_adjusted latency_p50_s latency_p95_s cost_per_1k train_s tokens stopped"
    assert all(set(contract.split()) <= arm.keys() for arm in row["arms"])
    assert {"kind", "arm", "sentence", "more_examples_needed"} <= row["verdict"].keys()
    assert [arm["name"] for arm in row["arms"]] == ["few_shot+fine_tune", "tfidf_linear", "base"]
    assert row["verdict"]["kind"] == "winner"
    best = row["arms"][0]
    assert best["low"] < best["score"] < best["high"]
    assert best["p_adjusted"] is None
    assert best["tokens"] == {"input": 120 * 14, "cached": 120 * 4, "output": 120 * 2}
    assert best["compute_per_answer"] == 12 * 1000
    assert best["cost_per_1k"] == pytest.approx(1000 * 0.5 * 0.10 / 3600)
    probabilities = {"calibration_error", "brier", "aurc", "reliable_coverage"}
    assert best["secondary"].keys() == {"macro_f1", "valid", "invalid_rate", *probabilities}
    assert probabilities & row["arms"][1]["secondary"].keys() == set()  # a floor's only order its labels
    assert row["price_per_hour"] == 0.10
    assert row["data"]["labels"] == {label: [10, 15, 30] for label in LABELS}


def test_a_comparison_reads_back_equal(tmp_path):
    found = compare(three_arms(Builds()), DATA, METRICS, folder=tmp_path, primary="accuracy")
    assert Comparison.from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()
    loaded = load_run(tmp_path)
    assert loaded.to_json() == found.to_json()
    assert loaded.evaluations == found.evaluations


def test_dev_and_test_are_both_measured_and_kept(tmp_path):
    found = compare(three_arms(Builds()), DATA, METRICS, folder=tmp_path, primary="accuracy")
    run = read_arm(tmp_path, "base")
    assert (len(run.dev.rows), len(run.test.rows), len(run.latency.seconds)) == (60, 120, 12)
    assert found.arm("base").dev_score == run.dev.mean("accuracy")


def test_a_run_that_breaks_inside_an_arm_continues_and_ends_with_the_same_result(tmp_path):
    class Unplugged(Scripted):
        def answer(self, requests):
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().answer(requests)

    builds = Builds()
    broken = [*three_arms(builds)[:1], builds.arm("tfidf_linear", lambda: Unplugged(0.6, "t"), floor=True)]
    with pytest.raises(KeyboardInterrupt):
        compare(broken, DATA, METRICS, folder=tmp_path / "run", primary="accuracy")
    assert builds.counts == {"base": 1, "tfidf_linear": 1}
    resumed = compare(three_arms(builds), DATA, METRICS, folder=tmp_path / "run", primary="accuracy")
    assert builds.counts == {"base": 1, "tfidf_linear": 2, "few_shot+fine_tune": 1}
    unbroken = compare(three_arms(Builds()), DATA, METRICS, folder=tmp_path / "other", primary="accuracy")
    assert timeless(resumed) == timeless(unbroken)
    assert resumed.evaluations == unbroken.evaluations


def test_a_run_killed_while_it_writes_continues_and_leaves_no_rubbish(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
import tailorbird.evaluation.run_folder as run_folder
from scripted_arms import *
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import default_metrics
writes = []
write_atomic = run_folder.write_atomic
def killed(path, content):
    writes.append(path)
    if len(writes) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    write_atomic(path, content)
run_folder.write_atomic = killed
data = classify_data()
arms = [Arm("base", lambda: Scripted(0.3, "b")), Arm("other", lambda: Scripted(0.9, "o"))]
compare(arms, data, default_metrics(data.task), folder=Path(sys.argv[1]), primary="accuracy")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "arms" / "base" / "arm.json").exists()
    assert len(list((tmp_path / "arms").glob(".*"))) == 1
    builds = Builds()
    arms = [builds.arm("base", lambda: Scripted(0.3, "b")), builds.arm("other", lambda: Scripted(0.9, "o"))]
    resumed = compare(arms, DATA, METRICS, folder=tmp_path, primary="accuracy")
    assert builds.counts == {"other": 1}
    assert list((tmp_path / "arms").glob(".*")) == []
    assert timeless(resumed) == timeless(compare(arms, DATA, METRICS, primary="accuracy"))


def test_a_finished_run_is_only_read(tmp_path):
    builds = Builds()
    first = compare(three_arms(builds), DATA, METRICS, folder=tmp_path, primary="accuracy")
    events = []
    again = compare(
        three_arms(builds), DATA, METRICS, folder=tmp_path, primary="accuracy", on_event=events.append
    )
    assert set(builds.counts.values()) == {1}
    assert again.to_json() == first.to_json()
    assert all(event.reused for event in events if isinstance(event, ArmFinished))


def test_what_an_arm_is_made_of_decides_whether_it_runs_again(tmp_path):
    builds = Builds()
    arms = three_arms(builds)

    def run(arms=arms, data=DATA, metrics=METRICS):
        builds.counts.clear()
        compare(arms, data, metrics, folder=tmp_path, primary="accuracy")
        return dict(builds.counts)

    run()
    assert run([*arms[:2], replace(arms[2], key="v2")]) == {"few_shot+fine_tune": 1}
    assert run([*arms[:2], replace(arms[2], key="v2")]) == {}
    assert len(run(data=replace(DATA, train=messages(0, 39)))) == 3
    assert len(run(metrics={"accuracy": METRICS["accuracy"]})) == 3


def test_changed_documents_change_the_fingerprint(tmp_path):
    (tmp_path / "a.md").write_text("one")
    before = data_fingerprint(replace(DATA, documents=tmp_path))
    assert data_fingerprint(replace(DATA, documents=tmp_path)) == before
    (tmp_path / "a.md").write_text("two")
    assert data_fingerprint(replace(DATA, documents=tmp_path))["documents"] != before["documents"]


def test_a_failed_arm_is_shown_and_tried_again_while_the_others_go_on(tmp_path):
    arms = [
        Arm("remote", Failing),
        Arm("base", lambda: Scripted(0.5)),
        Arm("good", lambda: Scripted(0.95, "g")),
    ]
    events = []
    found = compare(arms, DATA, METRICS, folder=tmp_path, primary="accuracy", on_event=events.append)
    failed = found.arm("remote")
    assert failed.failed == "The endpoint https://models.example does not answer. Try again later."
    assert (failed.score, failed.stopped, found.verdict.arm) == (None, False, "good")
    assert "not of remote (failed)" in found.verdict.sentence
    assert found.arms[-1].name == "remote"
    assert ArmFinished("remote", "failed", message=failed.failed) in events
    assert load_run(tmp_path).to_json() == found.to_json()
    builds = Builds()
    repaired = [builds.arm("remote", lambda: Scripted(0.6, "r")), *arms[1:]]
    assert compare(repaired, DATA, METRICS, folder=tmp_path, primary="accuracy").arm("remote").ran
    assert builds.counts == {"remote": 1}


def test_a_defect_is_not_hidden_as_a_failed_arm():
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compare([Arm("broken", broken)], DATA, METRICS, primary="accuracy")


def test_arms_not_started_in_time_are_stopped_and_run_when_there_is_time(tmp_path):
    now = [0.0]

    class Slow(Scripted):
        def answer(self, requests):
            now[0] += 0.9
            return super().answer(requests)

    builds = Builds()
    arms = [builds.arm("slow", lambda: Slow(0.3, "s")), *three_arms(builds)[1:]]
    budget = Budget(4, clock=lambda: now[0])
    found = compare(arms, DATA, METRICS, folder=tmp_path, primary="accuracy", budget=budget)
    assert builds.counts == {"slow": 1}
    assert [arm.name for arm in found.arms if arm.stopped] == ["few_shot+fine_tune", "slow", "tfidf_linear"]
    why = found.arm("tfidf_linear").stopped_why, found.arm("slow").stopped_why
    assert why == (
        "The budget was used up before this arm's turn.",
        "The budget was used up while it was measured.",
    )
    assert found.arm("slow").num_dev == 60
    assert (
        "not of slow (stopped), tfidf_linear (stopped), few_shot+fine_tune (stopped)"
        in found.verdict.sentence
    )
    assert load_run(tmp_path).to_json() == found.to_json()
    later = compare(arms, DATA, METRICS, folder=tmp_path, primary="accuracy")
    assert builds.counts == {"slow": 2, "tfidf_linear": 1, "few_shot+fine_tune": 1}
    assert not any(arm.stopped for arm in later.arms)


def test_events_tell_how_far_the_comparison_is():
    events = []
    compare(three_arms(Builds()), DATA, METRICS, primary="accuracy", on_event=events.append)
    assert events[0] == ArmStarted("base", 0, 3)
    stages = [
        e.stage for e in events if isinstance(e, StageProgress) and e.arm == "base" and e.done == e.total
    ]
    assert stages == ["build", "dev", "test", "latency"]
    verdicts = [e for e in events if isinstance(e, VerdictSoFar)]
    assert [(v.num_finished, v.verdict.arm) for v in verdicts] == [
        (1, "base"),
        (2, "tfidf_linear"),
        (3, "few_shot+fine_tune"),
    ]
    finished = next(e for e in events if isinstance(e, ArmFinished))
    assert (finished.status, finished.reused) == ("done", False)
    assert finished.low < finished.score < finished.high


def test_endpoints_with_token_prices_are_priced_by_the_token():
    price = TokenPrice(input_per_million=1.0, output_per_million=10.0, cached_per_million=0.5)
    found = compare([Arm("remote", lambda: Scripted(0.9), price=price)], DATA, METRICS, primary="accuracy")
    assert found.arm("remote").cost_per_1k == pytest.approx(1000 * (10 * 1.0 + 4 * 0.5 + 2 * 10.0) / 1e6)


def test_the_cheapest_is_told_by_tokens_times_parameters_not_by_the_clock():
    arms = [
        Arm("small", lambda: Scripted(1.0, "s", num_parameters=10)),
        Arm("large", lambda: Scripted(1.0, "l", num_parameters=1000)),
        Arm("unsized", lambda: Scripted(1.0, "u", num_parameters=None)),
    ]
    found = compare(arms, classify_data(400), METRICS, primary="accuracy")
    assert (found.verdict.kind, found.verdict.arm) == ("tie", "small")
    assert found.arm("unsized").compute_per_answer is None


def test_refusals_are_measured_for_free_answers():
    class Refusing(Scripted):
        def answer(self, requests):
            return [Completion(NOT_IN_DOCUMENTS) for _ in requests]

    examples = [
        Example.pair(f"Question {i}", NOT_IN_DOCUMENTS if i % 2 else f"answer {i}") for i in range(20)
    ]
    data = Data(Task("answer", "Answer."), (), tuple(examples[:10]), tuple(examples[10:]))
    found = compare([Arm("shy", lambda: Refusing(1.0))], data, default_metrics(data.task), primary="token_f1")
    shy = found.arm("shy")
    assert shy.score == 0.5
    refused = {"rightly_refused": 1.0, "wrongly_refused": 1.0, "refusal_correctness": 0.5}
    assert shy.secondary == {"exact_match": 0.5, **refused}
    assert found.data["num_unanswerable"] == 5


def test_test_messages_repeated_in_training_are_counted():
    repeated = Example.pair("Message 7!", LABELS[3])
    data = replace(DATA, test=(*DATA.test, repeated))

    class Told(Scripted):
        def answer(self, requests):
            return [Completion(LABELS[0]) for _ in requests]

    assert (
        compare([Arm("base", lambda: Told(1.0))], data, METRICS, primary="accuracy").data["repeated_in_test"]
        == 1
    )


def test_what_cannot_be_compared_is_refused_with_a_reason():
    arms = three_arms(Builds())
    with pytest.raises(RecipeError, match="needs at least one arm"):
        compare([], DATA, METRICS, primary="accuracy")
    with pytest.raises(RecipeError, match="arm 'base' is named twice"):
        compare([*arms, arms[0]], DATA, METRICS, primary="accuracy")
    with pytest.raises(DataError, match="The dev split has no examples"):
        compare(arms, replace(DATA, dev=()), METRICS, primary="accuracy")
    with pytest.raises(DataError, match="The test split has no examples"):
        compare(arms, replace(DATA, test=()), METRICS, primary="accuracy")
    with pytest.raises(NotFound, match="metric 'bleu' is not among those given: accuracy, valid"):
        compare(arms, DATA, METRICS, primary="bleu")


def test_damaged_answers_are_measured_anew_and_never_shown(tmp_path):
    builds = Builds()
    compare(three_arms(builds), DATA, METRICS, folder=tmp_path, primary="accuracy")
    path = tmp_path / "arms" / "base" / "test.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match=r"test\.jsonl is damaged: its sha256 is"):
        load_run(tmp_path)
    compare(three_arms(builds), DATA, METRICS, folder=tmp_path, primary="accuracy")
    assert builds.counts == {"base": 2, "tfidf_linear": 1, "few_shot+fine_tune": 1}
    assert load_run(tmp_path).arm("base").ran


def test_a_folder_without_a_finished_run_says_so(tmp_path):
    with pytest.raises(NotFound, match=r"holds no finished run: comparison\.json is missing"):
        load_run(tmp_path)
    with pytest.raises(NotFound, match="holds no finished arm 'base'"):
        read_arm(tmp_path, "base")


@pytest.mark.parametrize("name", ["../../evil", ".hidden", "a/b", "knowledge+fine_tune", "Größe 1", ".."])
def test_any_arm_name_stays_inside_the_folder(tmp_path, name):
    folder = tmp_path / "run"
    compare([Arm(name, lambda: Scripted(0.5))], DATA, METRICS, folder=folder, primary="accuracy")
    assert read_arm(folder, name).name == name
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert len(list((folder / "arms").iterdir())) == 1


def test_the_terminal_table_has_a_row_for_every_arm(tmp_path):
    arms = [*three_arms(Builds()), Arm("remote", Failing)]
    columns, rows = terminal_table(compare(arms, DATA, METRICS, primary="accuracy"))
    assert columns[:3] == ["arm", "accuracy", "95 % interval"]
    assert all(len(row) == len(columns) for row in rows)
    assert rows[0][0] == "few_shot+fine_tune ←"
    assert rows[0][3] == "candidate"
    assert rows[2][3].startswith("−")
    assert rows[3][1].startswith("failed: The endpoint")
