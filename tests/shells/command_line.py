"""How the tests of the command line run it, and the data they run it on."""

import json
import os
import subprocess
import sys
from pathlib import Path

from forked import run

TICKETS = Path(__file__).resolve().parents[2] / "sample" / "tickets.jsonl"
LABELS = ("orders", "workshop", "vouchers", "rental")
ARMS = "majority,tfidf_linear,nearest,blank"
COMPARE = ("compare", "--examples", "tickets.jsonl", "--arms", ARMS, "--seed", "1", "--out", "out")


def environment():
    kept = {k: v for k, v in os.environ.items() if k not in ("TAILORBIRD_HOME", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def start(arguments, folder, **options):
    """The command as a process of its own; `options` go to Popen."""
    command = [sys.executable, "-m", "tailorbird.cli", *arguments]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=folder, env=environment(), text=True, **streams)


def tailor(*arguments, folder):
    """Runs the command to its end: (exit code, stdout, stderr)."""
    program = "from tailorbird.cli.main import main; main()"
    return run(program, *arguments, folder=folder, environment=environment())


def write_tickets(path, per_label=25):
    """Some real messages of four labels."""
    rows = [json.loads(line) for line in TICKETS.read_text(encoding="utf-8").splitlines()]
    kept = [row for label in LABELS for row in [r for r in rows if r["completion"] == label][:per_label]]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
