"""A small real project, compared once by the command itself and shared by the tests of the command line."""

import json
import os
import shutil
import signal

import pytest
from command_line import COMPARE, start, tailor, write_tickets
from filelock import FileLock


def compared(folder):
    """Interrupts a comparison after its first arm and runs it again to its end: what both said."""
    write_tickets(folder / "tickets.jsonl")
    process = start(COMPARE, folder)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("[2/4]"):
            process.send_signal(signal.SIGINT)
            break
    rest, err = process.communicate(timeout=180)
    return (process.returncode, "".join(seen) + rest, err), tailor(*COMPARE, folder=folder)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder in which a comparison was interrupted and then run again to its end; made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compared"
    with FileLock(f"{shared}.lock"):
        if not (shared / "said.json").is_file():
            (shared / "project").mkdir(parents=True)
            said = compared(shared / "project")
            (shared / "said.json").write_text(json.dumps(said))
    folder = shutil.copytree(shared / "project", tmp_path_factory.mktemp("project") / "copy")
    interrupted, finished = (tuple(said) for said in json.loads((shared / "said.json").read_text()))
    return folder, interrupted, finished
