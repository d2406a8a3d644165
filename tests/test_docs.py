"""The documents can't drift: every command and program in README.md and docs/ is run, every recipe planned.

- A ```bash block is run by bash in a folder that holds a copy of sample/ and recipes/. Lines that call make
  are looked up in the Makefile instead.
- A block that starts `tailor serve` runs in the background, on a free port, until the document ends.
- A ```python block is run as a program; after `<!-- file: NAME.py -->` it is a file of a plug-in, which is
  installed with the entry points of the document's pyproject.toml.
- Blocks after `<!-- slow -->` need minutes and run with --runslow only.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from tailorbird.recipe_file import read_recipe_file
from tailorbird.workbench import INITIAL_CONFIG, Workbench

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RECIPES = sorted([*(ROOT / "recipes").glob("*.toml"), *(ROOT / "sample").glob("*.toml")])
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
PORT = "8000"


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comment before it says."""

    language: str
    text: str
    line: int
    mark: str = ""

    @property
    def slow(self):
        return self.mark == "slow"

    @property
    def file(self):
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None

    @property
    def commands(self):
        """The block's lines without calls of make, which are looked up and not run."""
        return [line for line in self.text.splitlines() if not line.startswith("make ")]


def blocks(path):
    text = path.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["text"], text[: m.start("text")].count("\n") + 1, m["mark"] or "")
        for m in BLOCK.finditer(text)
    ]


def programs(path):
    return [b for b in blocks(path) if b.language in ("bash", "console", "python")]


class Reader:
    """Somebody who follows a document from top to bottom in a fresh folder."""

    def __init__(self, folder):
        self.folder, self.server = folder, None
        for name in ("sample", "recipes"):
            shutil.copytree(ROOT / name, folder / name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        kept = {k: v for k, v in os.environ.items() if k not in ("TAILORBIRD_HOME", "VIRTUAL_ENV")}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        places = os.pathsep.join(filter(None, [str(folder / "installed"), kept.get("PYTHONPATH")]))
        self.environment = {**kept, "PATH": path, "PYTHONPATH": places}

    def follow(self, block):
        text = "\n".join(block.commands).replace(PORT, self.port)
        if block.file:
            self.install(block)
        elif block.language == "python":
            self.run([sys.executable, "-W", "error::SyntaxWarning", "-c", text], block)
        elif text.startswith("tailor serve"):
            self.serve(text)
        elif "curl" not in text or shutil.which("curl"):
            self.run(["bash", "-euo", "pipefail", "-c", text], block)

    def run(self, command, block):
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"line {block.line}:\n{block.text}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr

    def install(self, block):
        (self.folder / "installed").mkdir(exist_ok=True)
        (self.folder / "installed" / block.file).write_text(block.text, encoding="utf-8")

    def install_entry_points(self, text):
        """What pip does with a pyproject.toml, as far as entry points are concerned."""
        project = tomllib.loads(text)["project"]
        lines = []
        for group, points in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
        info = self.folder / "installed" / f"{project['name']}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    def serve(self, text):
        assert len(text.splitlines()) == 1
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec {text}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(300):
            assert self.server.poll() is None, self.server.stdout.read()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"{text!r} was not ready after half a minute")

    def stop(self):
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)
            out, _ = self.server.communicate(timeout=60)
            assert self.server.returncode == 0, out


@pytest.fixture
def reader(tmp_path):
    found = Reader(tmp_path)
    try:
        yield found
    finally:
        if found.server is not None and found.server.poll() is None:
            found.server.kill()
            found.server.communicate()


def follow(reader, path, *, slow):
    for block in blocks(path):
        if block.language == "toml" and "entry-points" in block.text:
            reader.install_entry_points(block.text)
    for block in programs(path):
        if slow or not block.slow:
            reader.follow(block)
    reader.stop()


WITH_PROGRAMS = [path for path in DOCUMENTS if programs(path)]
WITH_SLOW_PROGRAMS = [path for path in DOCUMENTS if any(b.slow for b in programs(path))]


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", WITH_PROGRAMS, ids=name)
def test_the_commands_and_programs_of_a_document_run(path, reader):
    follow(reader, path, slow=False)
    if path.name == "README.md":
        assert reader.server is not None
        assert (reader.folder / "first-report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("path", WITH_SLOW_PROGRAMS, ids=name)
def test_so_do_those_that_need_minutes(path, reader):
    follow(reader, path, slow=True)


def test_the_documents_are_read_as_they_are_written():
    found = [b for path in DOCUMENTS for b in blocks(path)]
    fences = sum(path.read_text("utf-8").count("```") for path in DOCUMENTS)
    assert len(found) * 2 == fences
    assert {b.language for b in found} <= {"bash", "console", "python", "toml", "json", "text"}
    assert {b.mark for b in found if b.mark} <= {
        "slow",
        "file: discreet.py",
        "file: rows.py",
        "file: stock.py",
    }
    assert any(b.slow for b in found)


def test_every_make_target_that_a_document_names_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    text = "\n".join(path.read_text("utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"^make ([\w-]+)$|`make ([\w-]+)`", text, re.MULTILINE))
    assert {"demo", "test"} <= {a or b for a, b in named} <= targets


def test_links_between_documents_lead_somewhere():
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert "://" in link or (path.parent / link).exists(), f"{name(path)} links to {link}"


def test_the_readmes_toml_is_a_recipe_with_the_arms_it_names(tmp_path):
    texts = [b.text for b in blocks(ROOT / "README.md") if b.language == "toml"]
    text = next(text for text in texts if "arms = " in text)
    (tmp_path / "tailor.toml").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "sample" / "tickets.jsonl", tmp_path)
    shutil.copytree(ROOT / "sample" / "handbook", tmp_path / "handbook")
    plan = Workbench(tmp_path).comparisons.plan()
    assert [arm.name for arm in plan.arms] == [
        "tfidf_linear", "base", "few_shot", "few_shot+fine_tune", "three_examples",
    ]  # fmt: skip
    built = {arm.name: [step.build() for step in arm.steps] for arm in plan.arms}
    assert built["few_shot"][0].k == 5
    assert built["three_examples"][0].k == 3
    assert built["few_shot+fine_tune"][1].rank == 16


def test_the_readmes_live_sources_can_be_asked_for(tmp_path):
    text = next(b.text for b in blocks(ROOT / "README.md") if b.language == "toml" and "[sources" in b.text)
    (tmp_path / "tailor.toml").write_text(text, encoding="utf-8")
    [step] = read_recipe_file(tmp_path / "tailor.toml").arm("knowledge").steps
    assert [source.name for source in step.build().sources] == ["wikipedia", "shop"]


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_every_recipe_can_be_planned_as_it_stands(path, tmp_path):
    plan = Workbench(tmp_path).comparisons.plan(config=path)
    assert len(plan.arms) >= 4
    assert plan.data.train
    assert plan.data.dev
    assert plan.data.test
    assert not (tmp_path / ".tailorbird").exists()  # planning writes nothing


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=name)
def test_every_recipe_names_steps_to_customize_with(path):
    steps = read_recipe_file(path).steps
    assert steps
    assert [step.build() for step in steps]


def test_the_config_that_init_writes_is_understood_with_every_comment_taken_away(tmp_path):
    lines = [re.sub(r"^# (?=[\w\[]+ ?[=\w\]])", "", line) for line in INITIAL_CONFIG.splitlines()[1:]]
    text = "\n".join(line for line in lines if not line.startswith("Settings of"))
    (tmp_path / "tailor.toml").write_text(text, encoding="utf-8")
    found = read_recipe_file(tmp_path / "tailor.toml")
    assert found.base == "starter"
    assert found.documents == tmp_path / "documents"
    assert found.settings["few_shot"]["k"] == 5
    assert [step.build() for arm in found.arms for step in found.arm(arm).steps]
