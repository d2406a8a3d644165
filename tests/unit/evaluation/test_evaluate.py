import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
from scripted_arms import CLASSIFY, LABELS, Scripted, messages

from tailorbird.data.task import Task
from tailorbird.errors import NotFound, RequestError
from tailorbird.evaluation.evaluate import Evaluation, Latency, evaluate, measure_latency
from tailorbird.evaluation.metrics import accuracy, default_metrics
from tailorbird.records import Completion, Example, Message, Passage, Request, Sampling, Usage


@dataclass
class Told:
    """Answers what it is told to."""

    completion: Completion
    name: str = "told"

    def answer(self, requests):
        return [self.completion for _ in requests]

    def stream(self, request):
        yield self.completion.text


def test_every_example_is_asked_as_the_task_words_it_in_batches_and_in_order():
    model = Scripted(1.0)
    progress = []
    found = evaluate(
        model,
        messages(0, 10),
        CLASSIFY,
        {"accuracy": accuracy},
        batch_size=4,
        on_progress=lambda *p: progress.append(p),
    )
    assert model.calls == [4, 4, 2]
    assert progress == [(4, 10), (8, 10), (10, 10)]
    assert [row.question for row in found.rows] == [f"message {i}" for i in range(10)]
    asked = found.rows[3].completion.asked
    assert asked.messages[0] == Message("system", "Name the category.")
    assert (asked.choices, asked.example_id) == (LABELS, messages(3, 4)[0].id)


@pytest.mark.parametrize(
    ("total", "batch_size", "calls"),
    [(9, 4, [4, 5]), (5, 4, [5]), (1, 4, [1]), (3, 1, [1, 1, 1]), (0, 4, [])],
)
def test_none_is_left_over_to_be_asked_by_itself(total, batch_size, calls):
    model = Scripted(1.0)
    found = evaluate(model, messages(0, total), CLASSIFY, {"accuracy": accuracy}, batch_size=batch_size)
    assert model.calls == calls
    assert [row.question for row in found.rows] == [f"message {i}" for i in range(total)]


def test_means_are_taken_over_all_rows():
    found = evaluate(Scripted(0.5), messages(0, 200), CLASSIFY, default_metrics(CLASSIFY))
    assert found.mean("accuracy") == sum(found.scores("accuracy")) / 200
    assert 0.35 < found.mean("accuracy") < 0.65
    assert Evaluation(()).mean("accuracy") == 0


def test_an_unmeasured_metric_is_named_with_those_that_were():
    found = evaluate(Scripted(0.5), messages(0, 2), CLASSIFY, {"accuracy": accuracy})
    with pytest.raises(NotFound, match="'rouge' was not measured, only accuracy"):
        found.mean("rouge")


def test_a_model_that_loses_answers_is_told_so():
    class Losing(Scripted):
        def answer(self, requests):
            return super().answer(requests)[1:]

    with pytest.raises(RequestError, match="'scripted' gave 2 completions for 3 requests"):
        evaluate(Losing(1.0), messages(0, 3), CLASSIFY, {"accuracy": accuracy})


def test_every_answer_survives_json_whole():
    hostile = 'line\u2028separator "quoted"\nnew \x00 line 🐦'
    asked = Request(
        (Message("system", hostile), Message("user", "Who?")),
        Sampling(9, 0.5, 0.9, 3, ("\n", "END")),
        (Passage("p", "d.md", hostile, "T", ("A", "B"), 1, 2, 3, "v", 0.25),),
        ("a", "b"),
        "e1",
    )
    completion = Completion(
        hostile, "length", Usage(7, 3, 2), 0.125, {"a": 0.1 + 0.2, "b": 1e-17}, asked, ("p9",), valid=False
    )
    task = Task("answer", "")
    examples = [Example.pair("Who?", "Ada", document="d.md"), Example.pair("Why?", hostile)]
    found = evaluate(Told(completion), examples, task, default_metrics(task))
    lines = [json.dumps(row) for row in found.to_rows()]
    assert Evaluation.from_rows(json.loads(line) for line in lines) == found


def test_examples_are_grouped_only_where_documents_are_shared():
    task = Task("answer", "")
    told = Told(Completion("x"))

    def groups(*documents):
        examples = [Example.pair(f"Q{i}", "x", document=d) for i, d in enumerate(documents)]
        return evaluate(told, examples, task, default_metrics(task)).groups

    assert groups(None, None) is None
    assert groups("a", "b", None) is None
    assert groups("a", "a", "b")[:2] == ["a", "a"]
    found = groups("a", "a", None, None)
    assert found[2] != found[3]


def test_latency_is_measured_one_by_one_after_a_warm_up_that_is_not_timed():
    model = Scripted(1.0)
    requests = [CLASSIFY.ask(example) for example in messages(0, 20)]
    batched = model.answer(requests)
    model.calls.clear()
    progress = []
    latency = measure_latency(model, requests, 5, batched=batched, on_progress=lambda *p: progress.append(p))
    assert model.calls == [1] * 6
    assert len(latency.seconds) == 5
    assert latency.mismatches == ()
    assert 0 < latency.p50_s <= latency.p95_s
    assert progress[-1] == (5, 5)


def test_answers_that_batching_changes_are_found():
    class Fickle(Scripted):
        def answer(self, requests):
            suffix = "" if len(requests) == 1 else " (batched)"
            return [Completion(r.question + suffix) for r in requests]

    requests = [CLASSIFY.ask(example) for example in messages(0, 3)]
    latency = measure_latency(Fickle(1.0), requests, 12)
    assert [m.question for m in latency.mismatches] == ["message 0", "message 1", "message 2"]
    assert latency.mismatches[0].alone == "message 0"
    assert latency.mismatches[0].batched == "message 0 (batched)"


def test_percentiles_lie_between_order_statistics():
    latency = Latency((4.0, 1.0, 3.0, 2.0, 5.0))
    assert latency.p50_s == 3.0
    assert latency.p95_s == pytest.approx(4.8)
    assert Latency(()).p50_s is None
    assert measure_latency(Scripted(1.0), [], 12) == Latency(())


def test_evaluation_can_be_imported_without_torch():
    code = (
        "import sys, tailorbird.evaluation.compare, tailorbird.evaluation.report;"
        "print([m for m in ('torch', 'transformers', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
