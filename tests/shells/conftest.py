"""A small real project, compared once by the command itself and shared by the tests of the command line."""

import signal

import pytest
from command_line import COMPARE, start, tailor, write_tickets


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder in which a comparison was interrupted after its first arm and then run again to its end."""
    folder = tmp_path_factory.mktemp("project")
    write_tickets(folder / "tickets.jsonl")
    process = start(COMPARE, folder)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("[2/4]"):
            process.send_signal(signal.SIGINT)
            break
    rest, err = process.communicate(timeout=180)
    interrupted = (process.returncode, "".join(seen) + rest, err)
    return folder, interrupted, tailor(*COMPARE, folder=folder)
