"""Every command's results, errors and exit codes, inside one process."""

import json

import pytest
from command_line import write_tickets

from tailorbird.cli.main import run
from tailorbird.workbench import Workbench


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in."""
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)
    monkeypatch.delenv("TAILOR_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tickets(here):
    write_tickets(here / "tickets.jsonl")
    return here


@pytest.fixture
def compared(project, monkeypatch):
    """The project that has a comparison behind it."""
    folder, _, _ = project
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)
    monkeypatch.chdir(folder)
    return folder


def printed_json(capsys, *arguments, code=0):
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


ERRORS = {
    "nonsense": "No such command 'nonsense'.",
    "chekc x": "Did you mean 'check'?",
    "check": "Missing argument 'FILE'.",
    "check tickets.jsonl --what": "No such option: --what",
    "check absent.jsonl": "absent.jsonl: there is no such file.",
    "check tickets.jsonl --documents absent": "absent",
    "compare": "There are no examples.",
    "compare --examples absent.jsonl": "absent.jsonl: there is no such file.",
    "compare --examples tickets.jsonl --budget 15": "--budget: '15' is no duration.",
    "compare --examples tickets.jsonl --seed x": "Invalid value for '--seed'",
    "compare --examples tickets.jsonl --limit-test 0": "Invalid value for '--limit-test'",
    "compare --examples tickets.jsonl --arms base,fine_tuna": "'fine_tuna' is no technique.",
    "compare --examples tickets.jsonl --arms ,": "--arms ',' names no arm.",
    "compare --examples tickets.jsonl --arms base,base": "--arms names 'base' twice.",
    "compare --config absent.toml": "absent.toml: no such file.",
    "compare --examples tickets.jsonl --metric rogue": "metric 'rogue' is unknown. Known: accuracy, exact_match,",
    "compare --examples tickets.jsonl --also absent.py:f": "metric 'absent.py:f': no such file absent.py.",
    "compare --examples tickets.jsonl --judge absent": "model 'absent': no saved model",
    "compare --examples tickets.jsonl --judge-limit 0": "Invalid value for '--judge-limit'",
    "customize --steps few_shot": "Missing option '--name'.",
    "customize --name m": "give either --steps",
    "customize --name ../m --steps few_shot": "name '../m'",
    "ask absent hello": "model 'absent': no saved model",
    "ask http://127.0.0.1:9/v1 hello": "an endpoint needs the model's id after '#'",
    "models show absent": "model 'absent': there is no model of this name. There are: starter.",
    "models remove starter --yes": "model 'starter' is not saved here.",
    "serve --host 0.0.0.0": "without a key",
    "serve --key-env UNSET_KEY": "--key-env UNSET_KEY: the environment variable is not set",
    "serve --port 70000": "Invalid value for '--port'",
    "-C absent models list": "absent: no such project folder.",
    "init tickets.jsonl": "tickets.jsonl: File exists.",
}


@pytest.mark.parametrize("line", ERRORS)
def test_a_users_error_is_one_block_on_stderr_and_exit_code_2(tickets, capsys, line):
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert ERRORS[line] in err
    assert "Traceback" not in err
    assert "\n\n" not in err


def test_a_usage_error_says_where_the_help_is(here, capsys):
    assert run(["compare", "--what"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "Try: tailor compare --help"


@pytest.mark.parametrize("arguments", [[], ["models"]])
def test_no_command_shows_the_help_and_is_a_users_error(here, capsys, arguments):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert "Usage: tailor" in out + err
    assert "Error" not in err


def test_a_defect_says_that_it_is_ours_and_shows_its_traceback_only_on_demand(here, capsys, monkeypatch):
    def broken(self):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Workbench, "models", broken)
    assert run(["models", "list"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("Defect in Tailorbird 0.")
    assert "ZeroDivisionError: division by zero" in err
    assert "TAILOR_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("TAILOR_DEBUG", "1")
    assert run(["models", "list"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_users_error_shows_its_traceback_only_on_demand(here, capsys, monkeypatch):
    monkeypatch.setenv("TAILOR_DEBUG", "1")
    assert run(["compare", "--examples", "absent.jsonl"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert "Traceback" in err


def test_init_writes_a_file_that_can_be_read_and_never_overwrites_it(here, capsys):
    assert run(["init", "new/project"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "Wrote new/project/tailor.toml"
    assert "cd new/project && tailor compare" in out
    written = (here / "new" / "project" / "tailor.toml").read_bytes()
    assert run(["-C", "new/project", "init"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (here / "new" / "project" / "tailor.toml").read_bytes() == written


def test_data_that_cannot_be_trained_on_ends_with_1_and_a_report(here, capsys):
    (here / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "completion": "c"}\nnot json\n')
    assert run(["check", "bad.jsonl"]) == 1
    out, err = capsys.readouterr()
    assert "bad.jsonl:1" in out
    assert "bad.jsonl:3" in out
    assert "Cannot be trained on" in out
    assert err == ""
    report = printed_json(capsys, "check", "bad.jsonl", code=1)
    assert report["trainable"] is False


def test_check_summarises_documents_and_a_test_file(tickets, capsys):
    (tickets / "docs").mkdir()
    (tickets / "docs" / "a.md").write_text("# Opening hours\n\nNine to five.\n")
    (tickets / "test.jsonl").write_text((tickets / "tickets.jsonl").read_text().splitlines()[0] + "\n")
    report = printed_json(capsys, "check", "tickets.jsonl", "--documents", "docs", "--test", "test.jsonl")
    assert report["trainable"] is True
    assert report["task"] == "classify"
    assert report["documents"]["num_documents"] == 1
    assert report["num_removed_for_test"] == 1


@pytest.mark.parametrize("cost", ["0", "-1", "nan", "inf"])
def test_a_budget_of_no_money_is_refused(tickets, capsys, cost):
    assert run(["compare", "--examples", "tickets.jsonl", "--budget-cost", cost]) == 2
    assert f"--budget-cost {cost}: expected US dollars above 0" in capsys.readouterr().err


def test_a_plan_is_shown_and_nothing_is_run(tickets, capsys):
    options = [
        "compare",
        "--examples",
        "tickets.jsonl",
        "--limit-test",
        "5",
        "--budget",
        "90s",
        "--name",
        "mine",
    ]
    plan = printed_json(capsys, *options, "--plan")
    assert (plan["name"], plan["base"], plan["num_test"], plan["budget_s"]) == ("mine", "starter", 5, 90.0)
    assert {"base", "few_shot", "majority"} <= {arm["name"] for arm in plan["arms"]}
    assert [arm["floor"] for arm in plan["arms"] if arm["name"] in ("majority", "base")] == [True, False]
    assert run([*options, "--arms", "majority", "--plan"]) == 0
    assert capsys.readouterr().out.startswith("Comparing ")
    assert not (tickets / ".tailorbird" / "runs").exists()


def test_a_config_file_is_followed_and_flags_win_over_it(tickets, capsys):
    (tickets / "mine.toml").write_text('examples = "tickets.jsonl"\narms = ["blank", "majority"]\nseed = 7\n')
    plan = printed_json(capsys, "compare", "--config", "mine.toml", "--arms", "majority, nearest", "--plan")
    assert [arm["name"] for arm in plan["arms"]] == ["majority", "nearest"]
    assert plan["seed"] == 7


def test_metrics_and_a_judge_are_chosen_by_flags(tickets, capsys):
    (tickets / "scores.py").write_text(
        "def half(example, completion):\n    return (completion.text == example.completion) / 2\n"
    )
    flags = [
        "compare",
        "--examples",
        "tickets.jsonl",
        "--arms",
        "majority,tfidf_linear",
        "--metric",
        "scores.py:half",
    ]
    flags += ["--also", "rouge_l", "--also", "chrf"]
    # Port 1 answers nobody: the arms are not lost for it.
    flags += ["--judge", "http://127.0.0.1:1/v1#wise", "--judge-limit", "8"]
    plan = printed_json(capsys, *flags, "--plan")
    assert plan["metric"] == "scores.py:half"
    assert plan["metrics"] == ["scores.py:half", "rouge_l", "chrf"]
    assert plan["judge"] == "http://127.0.0.1:1/v1#wise"
    assert run(flags) == 0
    said = capsys.readouterr().out
    assert "judged by scores.py:half" in said
    assert "judge      http://127.0.0.1:1/v1#wise, on 8 test examples at most" in said
    assert "The judge http://127.0.0.1:1/v1#wise gave no opinion: endpoint http://127.0.0.1:1/v1:" in said
    found = printed_json(capsys, *flags[: flags.index("--judge")])
    assert found["judge"] is None
    majority = next(arm for arm in found["arms"] if arm["name"] == "majority")
    assert majority["score"] == majority["secondary"]["accuracy"] / 2
    assert {"rouge_l", "chrf"} <= majority["secondary"].keys()


def test_the_project_option_chooses_where_models_are_looked_for(compared, here, capsys):
    names = [info["id"] for info in printed_json(capsys, "-C", str(compared), "models", "list")]
    assert {"winner", "majority", "tfidf_linear", "nearest", "blank", "starter"} <= set(names)
    assert [info["id"] for info in printed_json(capsys, "models", "list")] == ["starter"]


def test_the_winner_can_be_asked_and_shown(compared, capsys):
    answer = printed_json(capsys, "ask", "tfidf_linear", "Where is my order? You said Tuesday.")
    assert answer["text"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert (answer["model"], answer["valid"], answer["finish_reason"]) == ("tfidf_linear", True, "choice")
    assert run(["ask", "tfidf_linear", "Where is my order? You said Tuesday."]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == answer["text"]
    assert second.startswith(f"{first} ")
    assert run(["models", "show", "winner"]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["model"], shown["origin"]) == ("winner", "comparison")


def test_a_model_is_made_replaced_only_on_demand_asked_and_removed(tickets, capsys):
    making = ["customize", "--steps", "majority", "--examples", "tickets.jsonl", "--name", "quick"]
    made = printed_json(capsys, *making)
    assert (made["id"], made["origin"], made["recipe"]) == ("quick", "saved", "majority")
    assert run(making) == 2
    assert "model 'quick' exists already. Choose another name, or give --replace." in capsys.readouterr().err
    assert run([*making, "--replace"]) == 0
    assert "Made quick: majority on starter" in capsys.readouterr().out
    assert printed_json(capsys, "ask", "quick", "hello")["valid"] is True
    assert run(["models", "remove", "quick"]) == 2
    assert "nobody can be asked here. Add --yes to delete it." in capsys.readouterr().err
    assert printed_json(capsys, "models", "remove", "quick", "--yes") == {"removed": "quick"}
    assert [info["id"] for info in printed_json(capsys, "models", "list")] == ["starter"]


def test_a_folder_that_cannot_be_written_is_no_defect(compared, capsys):
    options = [
        "compare",
        "--examples",
        "tickets.jsonl",
        "--arms",
        "blank",
        "--seed",
        "2",
        "--out",
        "tickets.jsonl",
    ]
    assert run(options) == 2
    assert "Error: tickets.jsonl: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A tiny model in a folder of transformers' format."""
    from tailorbird.testing.tiny import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tiny_model().engine.model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_check_shows_the_mask_in_marks_where_there_is_no_terminal(tickets, tiny_folder, capsys):
    assert run(["check", "tickets.jsonl", "--mask", "--rows", "2", "--base", tiny_folder]) == 0
    out = capsys.readouterr().out
    assert "estimated" not in out
    assert out.count("  no loss  <|im_start|>│") == 2
    marked = [line for line in out.splitlines() if line.startswith("  loss     ")]
    assert len(marked) == 2
    assert all(line.endswith("│<|im_end|>") for line in marked)
    assert out.splitlines()[-1].startswith("The model will learn to stop: the stop token '<|im_end|>' ends")


def test_check_gives_the_mask_as_json(tickets, tiny_folder, capsys):
    report = printed_json(capsys, "check", "tickets.jsonl", "--mask", "--base", tiny_folder)
    assert report["trainable"] is True
    assert len(report["mask"]["examples"]) == 3
    assert report["mask"]["learns_to_stop"] is True
    (example, *_) = report["mask"]["examples"]
    assert len(example["tokens"]) == example["num_prompt_tokens"] + example["num_completion_tokens"]
    assert sum(token["loss"] for token in example["tokens"]) == example["num_completion_tokens"]


def test_the_mask_of_what_cannot_be_trained_on_is_not_shown(here, capsys):
    (here / "bad.jsonl").write_text('{"prompt": "x"}\n')
    assert printed_json(capsys, "check", "bad.jsonl", "--mask", code=1)["mask"] is None


def test_the_tokens_on_a_terminal_are_coloured_by_their_loss(monkeypatch, capsys):
    from tailorbird.cli import masks
    from tailorbird.techniques.mask import MaskedToken

    monkeypatch.setattr(masks, "is_terminal", lambda _: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    masks._show_tokens((MaskedToken(1, "a\n", loss=False), MaskedToken(2, "b", loss=True)))
    out = capsys.readouterr().out
    assert "\x1b[2ma\\n" in out
    assert "42mb\x1b[0m" in out


def test_columns_are_named_on_every_command_that_reads_examples(tickets, capsys):
    rows = [json.loads(line) for line in (tickets / "tickets.jsonl").read_text().splitlines()]
    lines = [
        "Body;Kind;Other",
        *(f'"{row["prompt"].replace(chr(34), chr(39))}";{row["completion"]};x' for row in rows),
    ]
    (tickets / "tickets.csv").write_text("\n".join(lines) + "\n")
    assert run(["check", "tickets.csv"]) == 1
    assert "Say it: --prompt-column NAME --completion-column NAME." in capsys.readouterr().out
    columns = ["--prompt-column", "Body", "--completion-column", "Kind"]
    assert printed_json(capsys, "check", "tickets.csv", *columns)["num_examples"] == len(rows)
    plan = printed_json(
        capsys, "compare", "--examples", "tickets.csv", "--arms", "majority", "--plan", *columns
    )
    assert plan["task"]["labels"] == sorted({row["completion"] for row in rows})
    (tickets / "tailor.toml").write_text(
        'examples = "tickets.csv"\nprompt_column = "Body"\ncompletion_column = "Kind"\n'
    )
    assert printed_json(capsys, "compare", "--arms", "majority", "--plan")["num_train"] == plan["num_train"]
    made = printed_json(
        capsys, "customize", "--name", "m", "--steps", "majority", "--examples", "tickets.csv", *columns
    )
    assert made["id"] == "m"
