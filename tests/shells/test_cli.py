"""The command as a person or a script meets it: real processes on real, small data."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

from command_line import COMPARE, environment, start, tailor

HEAVY = {"torch", "transformers", "sklearn", "scipy", "onnxruntime", "fastapi", "uvicorn", "numpy"}


def imported_by(*arguments, folder):
    """The top-level packages that a command imports, and its exit code."""
    command = [sys.executable, "-X", "importtime", "-m", "tailorbird.cli", *arguments]
    found = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    names = re.findall(r"^import time:.*\|\s+([\w.]+)$", found.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in names}, found


def test_help_and_version_import_nothing_heavy(tmp_path):
    for arguments in (["--help"], ["--version"], ["compare", "--help"]):
        packages, found = imported_by(*arguments, folder=tmp_path)
        assert found.returncode == 0
        assert "tailorbird" in packages
        assert packages & HEAVY == set()
        assert found.stdout.strip()


def test_check_reports_without_importing_torch(project):
    folder, _, _ = project
    packages, found = imported_by("check", "tickets.jsonl", folder=folder)
    assert found.returncode == 0
    assert not packages & {"torch", "transformers", "sklearn"}
    assert "100 examples" in found.stdout
    assert "estimated" in found.stdout


def test_a_model_without_weights_is_asked_without_importing_torch(project):
    folder, _, _ = project
    packages, found = imported_by("ask", "tfidf_linear", "Where is my order?", folder=folder)
    assert found.returncode == 0
    assert "sklearn" in packages
    assert not packages & {"torch", "transformers"}


def test_ctrl_c_ends_with_130_and_says_that_the_next_run_continues(project):
    _, (code, out, err), _ = project
    assert code == 130
    assert "[1/4] majority: started" in out
    assert re.fullmatch(
        r"Stopped\. The next run continues where this one stopped; it is kept in \S+\.\n", err
    )


def test_the_next_run_takes_the_finished_arm_over_and_ends_with_a_verdict(project):
    folder, _, (code, out, err) = project
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "Comparing 4 arms on tickets"
    assert "  task       choosing one of 4 labels, judged by accuracy" in lines
    assert re.search(r"^  examples   \d+ to learn from, \d+ to choose, \d+ to test$", out, re.MULTILINE)
    assert re.search(r"^\[1/4\] majority: .* from an earlier run$", out, re.MULTILINE)
    assert re.search(r"^\[4/4\] blank: \d+\.\d % \(\d+\.\d to \d+\.\d\), \d+ s$", out, re.MULTILINE)
    assert (
        out.index("Comparing") < out.index("[1/4]") < out.index("So far, 2 of 4 arms: ") < out.index("\narm ")
    )
    verdict = json.loads((folder / "out" / "comparison.json").read_text())["verdict"]
    assert verdict["sentence"] in lines
    assert "Report:  out/report.html" in lines
    assert (folder / "out" / "report.html").is_file()


def test_output_that_is_no_terminal_holds_no_control_characters(project):
    _, _, (_, out, _) = project
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)


def test_the_best_arm_stands_first_in_the_table(project):
    _, _, (_, out, _) = project
    table = out.partition("\narm ")[2].partition("\n\n")[0].splitlines()[1:]
    scores = [float(re.split(r"\s{2,}", line)[1]) for line in table]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert sum("←" in line for line in table) == 1


def test_json_is_the_comparison_and_nothing_else(project):
    folder, _, _ = project
    before = json.loads((folder / "out" / "comparison.json").read_text())
    code, out, err = tailor(*COMPARE, "--json", folder=folder)
    assert code == 0
    printed = json.loads(out)
    assert printed == json.loads((folder / "out" / "comparison.json").read_text())
    assert printed["arms"] == before["arms"]
    assert printed["verdict"] == before["verdict"]
    assert "Comparing 4 arms" in err
    assert err.count("from an earlier run") == 4
    assert printed["reproduce"]["command"].startswith("tailor compare --examples tickets.jsonl")


def test_a_reader_that_goes_away_is_no_error(project):
    folder, _, _ = project
    process = start(("models", "list"), folder)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1)
    assert err == ""


def test_serve_tells_its_address_answers_and_ends_on_ctrl_c(project):
    folder, _, _ = project
    process = start(("serve", "--port", "0", "--json"), folder)
    try:
        told = ""
        for line in process.stdout:
            told += line
            if line == "}\n":
                break
        ready = json.loads(told)
        body = {"model": "majority", "messages": [{"role": "user", "content": "Where is my order?"}]}
        request = urllib.request.Request(
            f"{ready['base_url']}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert {"winner", "majority", "blank", "starter"} <= set(ready["models"])
    assert answer["choices"][0]["message"]["content"] in {
        "orders", "workshop", "vouchers", "rental",
    }  # fmt: skip
