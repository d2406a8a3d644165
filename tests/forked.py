"""Python processes for tests, forked from one that has loaded the libraries: loading takes longer than most tests.

Each child runs as the main program of a process of its own, with its own folder, environment and streams, and ends
as an interpreter does. Where forking is unsafe or unknown, as beside CUDA, a new interpreter runs instead.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SERVER = """
import gc, json, os, sys
import tailorbird.models.four_bits  # before bitsandbytes, which has something to say at its import
import peft, sklearn.linear_model, torch, torch._dynamo, torch.distributed, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
import httpx, pydantic, rich.progress, safetensors.torch, tailorbird.models.folders, tailorbird.workbench
from tailorbird.cli import main
gc.collect()
gc.freeze()  # children look for garbage among their own objects alone, and share these
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
    elif child := os.fork():
        print(child, flush=True)
    else:
        break
else:
    os._exit(0)
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update(asked["environment"])
places = [(0, os.devnull, os.O_RDONLY)]
places += [(n, asked[name], os.O_WRONLY | os.O_APPEND) for n, name in ((1, "out"), (2, "err")) if asked[name]]
for number, path, how in places:
    os.dup2(os.open(path, how), number)
if not asked["out"]:
    os.dup2(2, 1)
sys.stdin = open(0)
sys.argv[1:] = asked["arguments"]
sys.argv[0] = "tailor"
exec(compile(asked["program"], "<test>", "exec"), {"__name__": "__main__"})
"""


class Forked:
    """A child of the server; like a `Popen`."""

    def __init__(self, server, pid):
        self._server = server
        self._ended = False
        self.pid = pid

    def wait(self):
        """Its exit code, once it has ended; a signal's number is negative."""
        try:
            code = self._server.ask({"wait": self.pid})
        except BaseException:  # a test's time is over: what the server answers next would be to this question
            self._server.end()
            raise
        self._ended = True
        return code

    def kill(self):
        """Ends it where it hasn't ended."""
        if not self._ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Server:
    """The process that has loaded the libraries."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"
        atexit.register(self._process.stdin.close)

    def ask(self, asked):
        """Its answer to one request."""
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self):
        """Ends it; the next program gets another one."""
        server.cache_clear()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._process.stdin.close()


@cache
def server():
    return Server()


def start(program, *arguments, folder=".", environment=None, out=None, err=None):
    """Starts a program, given as text; what it prints goes to these files, or where this process's errors go."""
    environment = {**os.environ, **ONE_THREAD} if environment is None else environment
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        command = [sys.executable, "-c", program, *arguments]
        places = {"stdout": out, "stderr": err}
        with ExitStack() as opened:
            streams = {
                name: place and opened.enter_context(Path(place).open("a")) for name, place in places.items()
            }
            return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, **streams)
    asked = {"program": program, "arguments": arguments, "folder": str(Path(folder).resolve())}
    asked |= {"environment": environment, "out": out, "err": err}
    return Forked(server(), server().ask(asked))


def run(program, *arguments, folder, environment):
    """Runs a program to its end: (exit code, stdout, stderr)."""
    with NamedTemporaryFile() as out, NamedTemporaryFile() as err:
        child = start(program, *arguments, folder=folder, environment=environment, out=out.name, err=err.name)
        try:
            return child.wait(), out.read().decode(), err.read().decode()
        finally:
            child.kill()
