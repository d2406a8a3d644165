import numpy as np
import pytest
from scripted_arms import Builds, Scripted, classify_data

from tailorbird.errors import InputError, NotFound, RecipeError
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import METRICS, default_metrics
from tailorbird.evaluation.own_metrics import checked_metric, identities, metric_from_file
from tailorbird.records import Completion, Example

EXAMPLE = Example.pair("Where is it?", "here", file="rows.jsonl", line=7)
SCORE = "def close(example, completion):\n    return {value}\n"


@pytest.fixture
def written(tmp_path):
    def written(text, name="close"):
        (tmp_path / "scores.py").write_text(text, encoding="utf-8")
        return metric_from_file(f"scores.py:{name}", tmp_path / "scores.py", name)

    return written


def test_a_function_in_a_file_is_a_metric(written):
    metric = written(
        "from dataclasses import dataclass\n\n@dataclass\nclass Half:\n    value: float = 0.5\n\n\n"
        "def close(example, completion):\n"
        "    return 1 if completion.text == example.completion else Half().value\n"
    )
    assert metric.name == "scores.py:close"
    assert metric(EXAMPLE, Completion("here")) == 1
    assert metric(EXAMPLE, Completion("there")) == 0.5


@pytest.mark.parametrize("value", ["True", "1", "0.25"])
def test_numbers_of_any_kind_are_scores(written, value):
    assert written(SCORE.format(value=value))(EXAMPLE, Completion("here")) == float(eval(value))


def test_numbers_of_numpy_are_scores():
    assert checked_metric("m", lambda e, c: np.float32(0.5))(EXAMPLE, Completion("")) == 0.5


@pytest.mark.parametrize("value", ["1.5", "-0.1", "float('nan')", "'high'", "None", "1j"])
def test_anything_else_is_an_error_that_tells_the_example_and_what_it_gave(written, value):
    got = repr(eval(value))
    with pytest.raises(
        InputError, match=r"metric 'scores\.py:close': it gave .* for rows\.jsonl:7"
    ) as raised:
        written(SCORE.format(value=value))(EXAMPLE, Completion("over there"))
    message = str(raised.value)
    assert f"it gave {got} for" in message
    assert "(prompt 'Where is it?', answer 'over there')" in message
    assert "Expected a number from 0 to 1" in message


def test_an_exception_inside_is_named_with_the_example(written):
    with pytest.raises(
        InputError,
        match=r"metric 'scores\.py:close': it raised ZeroDivisionError: division by zero at rows\.jsonl:7",
    ):
        written(SCORE.format(value="1 / 0"))(EXAMPLE, Completion("here"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"metric 'm\.py:f': no such file .*m\.py"):
        metric_from_file("m.py:f", tmp_path / "m.py", "f")


def test_a_name_that_is_not_in_the_file_is_told_with_those_that_are(written):
    with pytest.raises(NotFound, match=r"scores\.py holds no 'near'. Its functions: close"):
        written(SCORE.format(value=1), "near")


def test_a_file_that_cannot_be_run_says_why(written):
    with pytest.raises(RecipeError, match=r"scores\.py can't be run: SyntaxError"):
        written("def close(:\n")
    with pytest.raises(
        RecipeError, match=r"scores\.py can't be run: ModuleNotFoundError: No module named 'no_"
    ):
        written("import no_such_thing\n")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def close(example):\n    return 1\n", "takes other arguments"),
        ("def close(example, completion, extra):\n    return 1\n", "takes other arguments"),
        ("close = 3\n", "it is 3"),
    ],
)
def test_what_takes_no_example_and_completion_is_no_metric(written, text, what):
    with pytest.raises(RecipeError, match=f"metric 'scores.py:close': .*{what}.* Expected a function of two"):
        written(text)


def test_an_arm_is_measured_again_when_the_function_is_written_otherwise(written, tmp_path):
    data, builds = classify_data(), Builds()

    def run(text):
        builds.counts.clear()
        metrics = {**default_metrics(data.task), "own": written(text)}
        arms = [builds.arm("base", lambda: Scripted(0.3, "b"))]
        found = compare(arms, data, metrics, primary="own", folder=tmp_path / "run")
        return dict(builds.counts), found.arm("base").score

    assert run(SCORE.format(value=0.25)) == ({"base": 1}, 0.25)
    assert run(SCORE.format(value=0.25)) == ({}, 0.25)
    assert run(SCORE.format(value=0.75)) == ({"base": 1}, 0.75)


def test_an_arm_whose_metric_fails_is_shown_as_failed_with_the_example(written):
    data = classify_data()
    metrics = {"own": written(SCORE.format(value="2 if '101' in example.prompt else 1"))}
    found = compare([Builds().arm("base", lambda: Scripted(0.3, "b"))], data, metrics, primary="own")
    assert "it gave 2 for example" in found.arm("base").failed
    assert "message 101" in found.arm("base").failed


def test_built_in_metrics_are_told_apart_by_name_alone(written):
    own = written(SCORE.format(value=1))
    assert identities({"accuracy": METRICS["accuracy"], "valid": METRICS["valid"]}) == ["accuracy", "valid"]
    assert identities({"own": own, "accuracy": METRICS["accuracy"]}) == ["accuracy", f"own {own.source}"]
    assert len(own.source) == 16
