"""Runs over time on the command line: held against each other, gated, listed, shown and removed."""

import json
import re
from xml.etree import ElementTree as ET

import pytest
from command_line import LABELS, tailor, write_tickets

FLOORS = ("compare", "--examples", "tickets.jsonl", "--seed", "1")


@pytest.fixture
def shop(tmp_path):
    """A project in which floors were compared once."""
    write_tickets(tmp_path / "tickets.jsonl")
    code, out, err = tailor(*FLOORS, "--arms", "majority,nearest", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "Warning: This test set has been opened" not in out
    return tmp_path


def runs(folder):
    code, out, _ = tailor("runs", "list", "--json", folder=folder)
    assert code == 0
    return json.loads(out)


def test_a_change_of_data_is_told_arm_by_arm(shop):
    lines = (shop / "tickets.jsonl").read_text().splitlines(keepends=True)
    (shop / "tickets.jsonl").write_text("".join(lines[:-4]))
    earlier = runs(shop)[0]["name"]
    command = (*FLOORS, "--arms", "majority,nearest", "--against", "LAST", "--out", "out")
    code, out, err = tailor(*command, folder=shop)
    assert (code, err) == (0, "")
    assert re.search(rf"^Since {earlier} of \d{{4}}-\d\d-\d\d \d\d:\d\d:$", out, re.MULTILINE)
    assert re.search(r"^  On the \d+ test examples that both runs have", out, re.MULTILINE)
    assert re.search(r"^  nearest: [\d.]+ → [\d.]+ %, .* points \(", out, re.MULTILINE)
    assert "  changed: Examples: 4 removed." in out
    held = json.loads((shop / "out" / "comparison.json").read_text())["against"]
    assert held["run"] == earlier
    report = (shop / "out" / "report.html").read_text()
    assert "<h2>Since the last run</h2>" in report
    assert "Examples: 4 removed." in report


def test_an_arm_added_to_a_test_set_opens_it_again(shop):
    code, out, _ = tailor(*FLOORS, "--arms", "majority,nearest,blank", folder=shop)
    assert code == 0
    assert "Warning: This test set has been opened 2 times (3 arms in all)" in out
    code, again, _ = tailor(*FLOORS, "--arms", "majority,nearest,blank", folder=shop)
    assert "opened 2 times (3 arms in all)" in again


def test_gates_decide_the_exit_code_and_junit_tells_why(shop):
    command = (*FLOORS, "--arms", "majority,nearest", "--junit", "out/tailor.xml")
    code, out, err = tailor(*command, "--fail-under", "50%", "--fail-under-low", "0.2", folder=shop)
    assert (code, err) == (0, "")
    assert out.count("Gate passed: --fail-under") == 2
    root = ET.parse(shop / "out" / "tailor.xml").getroot()
    assert root.find("testsuite").get("failures") == "0"
    code, _, err = tailor(*command, "--fail-under", "99.9%", folder=shop)
    assert code == 3
    assert re.fullmatch(
        r"Gate failed: --fail-under 99\.9%: the score of nearest, [\d.]+ %, is below it\.\n", err
    )
    root = ET.parse(shop / "out" / "tailor.xml").getroot()
    assert [c.get("name") for c in root.iter("testcase") if c.find("failure") is not None] == ["nearest"]


def test_with_json_a_failed_gate_still_leaves_json_alone_on_stdout(shop):
    code, out, err = tailor(*FLOORS, "--arms", "majority,nearest", "--fail-under", "1", "--json", folder=shop)
    assert code == 3
    assert json.loads(out)["verdict"]["arm"] == "nearest"
    assert "Gate failed: --fail-under 100.0%" in err


def test_a_regression_fails_and_the_same_again_passes(shop):
    command = (*FLOORS, "--arms", "majority,nearest", "--against", "LAST", "--fail-if-worse")
    code, out, _ = tailor(*command, folder=shop)
    assert code == 0
    assert "Gate passed: --fail-if-worse: nearest, +0.0 points" in out
    rows = [json.loads(line) for line in (shop / "tickets.jsonl").read_text().splitlines()]
    [run] = runs(shop)
    answers = (shop / run["folder"] / "arms" / "nearest" / "test.jsonl").read_text().splitlines()
    asked = {json.loads(line)["question"] for line in answers}
    kept = [row for row in rows if row["prompt"] in asked]
    swapped = {label: LABELS[(i + 1) % len(LABELS)] for i, label in enumerate(LABELS)}
    learnt = [{**row, "completion": swapped[row["completion"]]} for row in rows if row["prompt"] not in asked]
    for name, some in (("train.jsonl", learnt), ("test.jsonl", kept)):
        (shop / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    command = ("compare", "--examples", "train.jsonl", "--test", "test.jsonl", "--seed", "1", *command[5:])
    code, out, err = tailor(*command, folder=shop)
    assert code == 3
    assert "is clearly worse than in" in err
    assert re.search(rf"changed: Examples: .*\b{len(learnt)} relabelled", out)
    assert f"On the {len(asked)} test examples that both runs have:" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--fail-under", "80"),
            "--fail-under '80': expected a share from 0 to 1, such as 0.8, or from 0% to 100%.",
        ),
        (("--fail-under-low", "much"), "--fail-under-low 'much': expected a share"),
        (("--fail-under", "nan"), "expected a share"),
        (("--fail-if-worse",), "--fail-if-worse: worse than what? Name the earlier run with --against LAST."),
        (("--against", "nothing"), "--against nothing: there is no such run"),
    ],
)
def test_what_makes_no_sense_is_a_users_error(tmp_path, options, words):
    write_tickets(tmp_path / "tickets.jsonl", per_label=5)
    code, _, err = tailor(*FLOORS, "--arms", "majority,blank", *options, folder=tmp_path)
    assert code == 2
    assert words in err


def test_runs_are_listed_shown_and_removed(shop):
    code, out, _ = tailor("runs", "list", folder=shop)
    assert code == 0
    header, line = out.splitlines()
    assert header.split() == ["run", "date", "base", "test", "verdict", "best", "95", "%", "interval"]
    assert re.search(
        r"tickets-\w{10} ←  \d{4}-\d\d-\d\d \d\d:\d\d  starter  \d+ +\w+ nearest  nearest [\d.]+ %", line
    )
    [info] = runs(shop)
    code, out, _ = tailor("runs", "show", "LAST", folder=shop)
    assert code == 0
    row = json.loads((shop / ".tailorbird" / "runs" / info["name"] / "comparison.json").read_text())
    assert row["verdict"]["sentence"] in out
    assert re.search(r"^nearest ←? +[\d.]+", out, re.MULTILINE)
    assert f"Report:  {info['report']}" in out
    code, out, _ = tailor("runs", "show", info["name"], "--json", folder=shop)
    assert json.loads(out)["comparison"] == row
    code, _, err = tailor("runs", "remove", info["name"], "--yes", folder=shop)
    assert code == 2
    assert "it is the last, and `winner` and its arms' names open its models" in err
    code, _, err = tailor("runs", "remove", info["name"], "--force", folder=shop)
    assert code == 2
    assert "nobody can be asked here. Add --yes to delete it." in err
    code, out, _ = tailor("runs", "remove", info["name"], "--force", "--yes", folder=shop)
    assert (code, out) == (0, f"Removed {info['name']}.\n")
    assert runs(shop) == []
    code, out, _ = tailor("runs", "list", folder=shop)
    assert out == "No comparison is kept here. `tailor compare` makes one.\n"
    code, _, err = tailor("runs", "show", "tickets-none", folder=shop)
    assert code == 2
    assert "there is none of this name. There are: none." in err
