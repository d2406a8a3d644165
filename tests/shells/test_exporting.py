"""`tailor export`, from a saved model to a folder that another server loads."""

import json
from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM

import tailorbird
from tailorbird.cli.main import run
from tailorbird.testing.tiny import tiny_data, tiny_model


@pytest.fixture
def tuned_project(tmp_path, monkeypatch):
    """A project with the model `sorter`: fine-tuned on a tiny base, as the command makes it."""
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)
    monkeypatch.delenv("TAILOR_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    tiny_model().engine.save(tmp_path / "base")
    data = tiny_data()
    rows = [{"prompt": e.prompt, "completion": e.completion} for e in (*data.train, *data.dev, *data.test)]
    (tmp_path / "tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tune.toml").write_text(
        'base = "base"\nexamples = "tiny.jsonl"\n'
        'steps = [{ technique = "fine_tune", rank = 8, epochs = 4, learning_rate = 1e-2 }]\n'
    )
    assert run(["customize", "--name", "sorter", "--recipe", "tune.toml"]) == 0
    return tmp_path


def test_a_saved_model_is_exported_with_the_examples_that_were_kept_with_it(tuned_project, capsys):
    capsys.readouterr()
    assert run(["export", "sorter", "--to", "gguf", "out", "--dtype", "f16"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("Exported sorter as f16 gguf (")
    assert lines[1].startswith("Replayed through xllamacpp ")
    assert "10 of 10 examples answered alike, probabilities at most 0.0" in lines[1]
    assert lines[-1] == "Next: ollama create NAME -f Modelfile"
    assert sorted(path.name for path in (tuned_project / "out").iterdir()) == [
        "Modelfile",
        "replay.json",
        "sorter.gguf",
    ]


def test_four_bits_are_two_files_and_the_command_says_why_and_how_to_load_them(tuned_project, capsys):
    capsys.readouterr()
    assert run(["export", "sorter", "--to", "gguf", "out", "--dtype", "q4"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[2].startswith("There are two files, since steps of four bits swallow what was trained: ")
    assert "sorter-base.gguf is the model before fine-tuning" in lines[2]
    assert "The first alone answers as if never fine-tuned" in lines[2]
    assert lines[-1] == "Next: llama-server --model sorter-base.gguf --lora sorter-adapter.gguf --jinja"
    assert sorted(path.name for path in (tuned_project / "out").iterdir()) == [
        "Modelfile",
        "replay.json",
        "sorter-adapter.gguf",
        "sorter-base.gguf",
    ]


def test_every_format_tells_programs_what_was_made(tuned_project, capsys):
    for form, dtype in (("gguf", "q8_0"), ("safetensors", "f32"), ("vllm", "f32")):
        capsys.readouterr()
        assert run(["export", "sorter", "--to", form, f"out-{form}", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["format"], told["dtype"], told["folder"]) == (form, dtype, f"out-{form}")
        assert told["replay"]["alike"] == told["replay"]["examples"] == 10
        assert "replay.json" in told["files"]
    assert AutoModelForCausalLM.from_pretrained(tuned_project / "out-vllm").num_parameters() > 0


def test_the_base_itself_needs_examples_to_be_proven_with(tuned_project, capsys):
    capsys.readouterr()
    assert run(["export", "base", "--to", "safetensors", "out"]) == 2
    assert "no held-out examples were kept with it, so nothing could be proven" in capsys.readouterr().err
    assert not (tuned_project / "out").exists()
    assert run(["export", "base", "--to", "safetensors", "out", "--examples", "tiny.jsonl"]) == 0
    assert "32 of 32 examples answered alike" in capsys.readouterr().out


ERRORS = {
    "export sorter out": "Missing option '--to'",
    "export sorter --to onnx out": "--to 'onnx' is no format",
    "export sorter --to gguf out --dtype q2": "--dtype 'q2' is none of gguf's. Expected one of f16, q8_0, q4.",
    "export absent --to gguf out": "model 'absent': no saved model",
    "export sorter --to gguf base": "base: the folder is not empty.",
    "export sorter --to gguf base --replace": "base: it holds no replay.json, so it is no earlier export",
    "export http://127.0.0.1:9/v1#m --to gguf out --examples tiny.jsonl": "has no weights on this machine",
}


def test_a_users_error_says_what_to_do_and_makes_nothing(tuned_project, capsys):
    before = sorted(path.name for path in tuned_project.iterdir())
    for line, told in ERRORS.items():
        capsys.readouterr()
        assert run(line.split()) == 2, line
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("Error: ")
        assert told in err
        assert sorted(path.name for path in tuned_project.iterdir()) == before


def test_a_mismatch_ends_with_2_and_no_folder(tuned_project, capsys, monkeypatch):
    from tailorbird.models.exports import merged

    changes = merged.adapter_changes
    monkeypatch.setattr(
        merged, "adapter_changes", lambda w: {k: replace(v, scaling=0.0) for k, v in changes(w).items()}
    )
    capsys.readouterr()
    assert run(["export", "sorter", "--to", "gguf", "out"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: export as q8_0, replayed through xllamacpp")
    assert "Nothing was written." in err
    assert not (tuned_project / "out").exists()


def test_python_has_the_same_verb(tuned_project):
    exported = tailorbird.export("sorter", "safetensors", "out", dtype="bf16")
    assert exported.replay.alike == len(exported.replay.answers) == 10
    again = tailorbird.export("sorter", "safetensors", "out", overwrite=True)
    assert (exported.dtype, again.dtype) == ("bf16", "f32")
