"""`tailor metaprompt` by its command line, on a tiny model: shown, edited, measured again, compared."""

import json
import tomllib

import pytest
from command_line import tailor, write_tickets

from tailorbird.cli import main

EDITOR = "#!/bin/sh\nsed -i 's/^k = .*/k = 2/' \"$1\"\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with a tiny base, a model with a metaprompt, and one without."""
    from tailorbird.testing.tiny import tiny_model

    folder = tmp_path_factory.mktemp("metaprompts")
    write_tickets(folder / "tickets.jsonl", per_label=6)
    tiny_model(context=2048).engine.save(folder / "tiny")
    (folder / "editor").write_text(EDITOR)
    (folder / "editor").chmod(0o755)
    make = ("customize", "--base", "tiny", "--examples", "tickets.jsonl")
    code, _, err = tailor(*make, "--name", "desk", "--steps", "few_shot", folder=folder)
    assert code == 0, err
    code, _, err = tailor(*make, "--name", "plain", "--steps", "majority", folder=folder)
    assert code == 0, err
    return folder


@pytest.fixture
def metaprompt(folder, monkeypatch, capsys):
    """Runs the command here: (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)

    def call(*arguments):
        code = main.run(["metaprompt", *arguments])
        return code, *capsys.readouterr()

    return call


def test_what_is_shown_is_the_file_that_edit_takes(metaprompt):
    code, out, _ = metaprompt("show", "desk")
    facts = tomllib.loads(out)
    assert code == 0
    assert (facts["version"], facts["k"], facts["select"]) == (1, 5, "nearest")
    assert facts["measured"]["metric"] == "accuracy"
    assert facts["made_of"].keys() == {"model", "weights", "tokenizer", "data"}
    code, out, _ = metaprompt("show", "desk", "--json")
    assert json.loads(out) == {"model": "desk", "versions": 1, "metaprompt": facts}


def test_what_the_weights_see_can_be_shown(metaprompt):
    code, out, _ = metaprompt("show", "desk", "--for", "Where is my parcel?", "--json")
    turns = json.loads(out)
    assert code == 0
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 5, "user"]
    assert turns[-1]["content"] == "Where is my parcel?"
    code, out, _ = metaprompt("show", "desk", "--for", "Where is my parcel?")
    assert out.rstrip().endswith("user:\nWhere is my parcel?")


def test_an_edit_is_measured_again_and_the_version_before_is_kept(folder, metaprompt):
    code, out, err = metaprompt(
        "edit", "desk", "--set", "k=3", "--set", "instruction=Sort it.", "--name", "two"
    )
    assert code == 0, err
    assert "two: version 2. accuracy" in out
    assert "Version 1: accuracy" in out
    _, found, _ = metaprompt("diff", "two")
    assert "-k = 5" in found
    assert "+k = 3" in found
    assert '+instruction = "Sort it."' in found
    _, first, _ = metaprompt("show", "two", "--version", "1")
    assert tomllib.loads(first)["k"] == 5
    assert tomllib.loads(metaprompt("show", "desk")[1])["version"] == 1
    code, out, _ = metaprompt("edit", "two", "--version", "1", "--json")
    back = json.loads(out)
    assert (back["versions"], back["metaprompt"]["k"], back["metaprompt"]["parent"]) == (3, 5, 2)
    code, out, _ = tailor("ask", "two", "Where is my parcel?", folder=folder)
    assert code == 0


def test_a_file_and_an_editor_can_edit(folder, metaprompt, monkeypatch):
    _, out, _ = metaprompt("show", "desk")
    (folder / "edited.toml").write_text(out.replace("k = 5", "k = 4"))
    code, out, err = metaprompt("edit", "desk", "--file", "edited.toml", "--name", "filed")
    assert code == 0, err
    assert tomllib.loads(metaprompt("show", "filed")[1])["k"] == 4
    monkeypatch.setenv("EDITOR", str(folder / "editor"))
    code, out, err = metaprompt("edit", "desk", "--name", "typed")
    assert code == 0, err
    assert tomllib.loads(metaprompt("show", "typed")[1])["k"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show absent", "model 'absent': nothing of that name is saved here"),
        ("show plain", "model 'plain': it has no metaprompt. `tailor customize --steps few_shot`"),
        ("diff desk", "it has one version only"),
        ("edit desk --set k=5", "nothing was changed, so there is no new version"),
        ("edit desk --set k=3 --file x", "--file and --set: give one of the two"),
        ("edit desk --set k=three", "metaprompt of desk: k is 'three'; expected a whole number"),
        ("edit desk --set version=3", "metaprompt: version is made anew with every edit"),
        (
            "edit desk --set select=balanced",
            "5 examples are to be shown to every request, and the file has 0",
        ),
        ("edit desk", "no editor is set in $VISUAL or $EDITOR"),
        ("edit desk --set k=3 --name plain", "model 'plain' exists already"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(folder, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for name in ("EDITOR", "VISUAL"):
        monkeypatch.delenv(name, raising=False)
    before = (folder / ".tailorbird" / "models" / "desk" / "model.json").read_bytes()
    assert main.run(["metaprompt", *arguments.split()]) == 2
    assert message in capsys.readouterr().err
    assert (folder / ".tailorbird" / "models" / "desk" / "model.json").read_bytes() == before
