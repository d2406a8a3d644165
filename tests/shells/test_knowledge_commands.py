"""`tailor knowledge` by its command line, and a comparison that answers from what it made."""

import json
import os
import re
import shutil
import signal
import time

import pytest
from command_line import start
from website import Website

from tailorbird.cli import main
from tailorbird.cli.knowing import progress_text
from tailorbird.sources.sync import SyncProgress

PAGES = {
    "returns.md": "# Returns\n\nHelmets may be returned within 30 days.",
    "opening.md": "# Opening hours\n\nThe shop opens at nine.",
    "scan.pdf": "%PDF-1.7 not really",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "docs").mkdir()
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).write_text(text)
    return tmp_path


@pytest.fixture
def knowledge(folder, monkeypatch, capsys):
    """Runs the command here: (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)

    def call(*arguments):
        code = main.run(["knowledge", *arguments])
        return code, *capsys.readouterr()

    return call


def test_documents_are_added_synced_searched_listed_and_removed(folder, knowledge):
    code, out, err = knowledge("add", "shop", "docs")
    assert code == 0, err
    assert "documents  2 added, 0 changed, 0 removed, 0 unchanged" in out
    assert "index      2 documents, 2 passages; 2 embedded" in out
    assert "unreadable scan.pdf: damaged" in out
    code, out, _ = knowledge("search", "shop", "How long may I return a helmet?", "-k", "1")
    assert "[1] returns.md › Returns" in out
    assert "within 30 days" in out
    (folder / "docs" / "opening.md").write_text("# Opening hours\n\nThe shop opens at ten.")
    code, out, _ = knowledge("sync", "--dry-run")
    assert "documents  would be 0 added, 1 changed, 0 removed, 1 unchanged" in out
    code, out, _ = knowledge("sync", "shop", "--json")
    (report,) = json.loads(out)
    assert (report["knowledge"], report["changed"], report["embedded"]) == ("shop", 1, 1)
    code, out, _ = knowledge("search", "shop", "When does it open?", "--json", "-k", "1")
    assert json.loads(out)[0]["text"].endswith("ten.")
    code, out, _ = knowledge("list", "--json")
    (info,) = json.loads(out)
    assert (info["passages"], info["without_vector"], info["origins"][0]["documents"]) == (2, 0, 2)
    code, out, _ = knowledge("remove", "shop")
    assert knowledge("list")[1].startswith("There is no knowledge here.")


def test_a_sync_shows_the_counts_that_must_come_out_even(folder, knowledge):
    (folder / "docs" / "scan.pdf").write_bytes(b"no PDF")
    out = knowledge("add", "shop", "docs")[1]
    assert "3 documents listed = 2 indexed + 1 unreadable; 2 passages = 2 with words = 2 with vectors" in out
    (folder / "docs" / "opening.md").write_bytes(b"%PDF-1.7 and no Markdown")
    code, out, _ = knowledge("sync", "shop")
    assert code == 0
    assert "= 1 indexed + 2 unreadable (1 of them indexed as read before); 2 passages = 2 with words" in out


def test_a_comparison_answers_from_a_knowledge_base_by_its_name(folder, knowledge, capsys):
    assert knowledge("add", "shop", "docs")[0] == 0
    shutil.rmtree(folder / "docs")
    asked = ("helmets", "gloves", "a saddle", "new brakes", "two bells", "some socks", "a pump", "old tyres")
    rows = [
        {"prompt": f"How long may I return {thing}?", "completion": f"{thing} within 30 days"}
        for thing in asked
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    compare = (
        "compare",
        "--examples",
        "questions.jsonl",
        "--documents",
        "shop",
        "--arms",
        "nearest",
        "--json",
    )
    code = main.run(compare)
    out, err = capsys.readouterr()
    assert code == 0, err
    assert json.loads(out)["arms"][0]["score"] > 0


def test_a_place_that_is_gone_is_an_error_and_the_others_are_synced(folder, knowledge):
    (folder / "more").mkdir()
    (folder / "more" / "bikes.md").write_text("Bikes are repaired on Mondays.")
    assert knowledge("add", "shop", "docs")[0] == 0
    assert knowledge("add", "shop", "more", "--no-sync")[0] == 0
    shutil.rmtree(folder / "docs")
    code, out, err = knowledge("sync")
    assert code == 2
    assert "documents  1 added" in out
    assert re.search(r"^Error: shop: .*docs: there is no such folder", err, re.MULTILINE)
    code, out, _ = knowledge("sync", "--json")
    assert code == 2
    assert "there is no such folder" in json.loads(out)[0]["failed"]


def test_a_site_is_added_by_its_kind_and_only_where_it_may_be_reached(knowledge):
    pages = {
        "/docs/": "<h1>Docs</h1><a href='fees'>Fees</a>",
        "/docs/fees": "<p>A transfer costs two euros.</p>",
    }
    with Website(pages).running() as site:
        add = ("add", "site", site.url("/docs/"), "--kind", "web_site", "--set", "pause_s=0")
        code, out, err = knowledge(*add, "--set", f"allow_hosts={site.host}")
        assert code == 0, err
        assert "documents  2 added" in out
        assert knowledge("search", "site", "What does a transfer cost?", "-k", "1")[1].startswith(
            f"[1] {site.url('/docs/fees')}"
        )
        code, _, err = knowledge("add", "other", site.url("/docs/"), "--kind", "web_site")
        assert code == 2
        assert "allow_hosts" in err


def test_how_well_documents_are_found_is_measured(folder, knowledge):
    assert knowledge("add", "shop", "docs")[0] == 0
    rows = [
        {"prompt": "How long may I return a helmet?", "completion": "30 days", "document": "returns.md"},
        {"prompt": "When does the shop open?", "completion": "at nine", "document": "opening.md"},
        {"prompt": "Who mends bikes?", "completion": "Ada", "document": "gone.md"},
        {"prompt": "Quantum chromodynamics?", "completion": "Not in the documents."},
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = knowledge("evaluate", "shop", "--examples", "asked.jsonl")
    assert code == 0, err
    assert re.search(r"^both +66.7 \(20.8 to 93.9\)", out, re.MULTILINE)
    assert "3 questions, 95 % intervals." in out
    assert "1 of them name a document that is not in shop; none can be found." in out
    assert "Refusing" not in out, "of three questions no gate can be told"
    code, out, _ = knowledge("evaluate", "shop", "--examples", "asked.jsonl", "--json")
    assert [r["ranking"] for r in json.loads(out)["rankings"]] == ["words", "meaning", "both"]


def test_questions_are_written_swept_and_the_ranking_recorded(folder, knowledge):
    for n, thing in enumerate(
        ("door", "desk", "bowl", "gate", "wall", "lamp", "sofa", "shelf", "chair", "stool") * 3
    ):
        about = f"The {thing} of house {n} was painted for £{n + 20} by the neighbours."
        (folder / "docs" / f"{n:02d}.md").write_text(f"# House {n}\n\n{about}")
    assert knowledge("add", "shop", "docs")[0] == 0
    code, out, err = knowledge("questions", "shop", "--out", "written.jsonl", "--per-document", "1")
    assert code == 0, err
    assert re.search(r"^written.jsonl: \d+ synthetic questions about \d+ documents.$", out, re.MULTILINE)
    assert re.search(r"^\d+ documents gave none.$", out, re.MULTILINE)
    rows = [json.loads(line) for line in (folder / "written.jsonl").read_text().splitlines()]
    assert all(row["synthetic"] and row["span"] for row in rows)
    code, out, err = knowledge("evaluate", "shop", "--examples", "written.jsonl")
    assert code == 0, err
    assert f"{len(rows)} of them are synthetic" in out
    assert re.search(
        r"The first 3 passages \(\d+ characters\) and \d+ answers whose place is known: recall ", out
    )
    asked = [
        {"prompt": f"What did they paint in house {n}?", "completion": "wall", "document": f"{n:02d}.md"}
        for n in range(30)
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    assert re.search(
        r"^Refusing, judged on questions the gate was not fitted to: of 30 questions with an answer \d+\.\d \(.*\) % "
        r"pass; with their document left out \d+\.\d \(.*\) % of the first are refused \(AUROC 0\.\d+, by ",
        knowledge("evaluate", "shop", "--examples", "asked.jsonl")[1],
        re.MULTILINE,
    )
    sweep = ("evaluate", "shop", "--examples", "asked.jsonl", "--tune", "--no-rerank")
    code, out, err = knowledge(*sweep)
    assert code == 0, err
    assert "asking with 600 characters, scores, 50 % meaning" in err
    assert re.search(r"^600 characters, ranks k=60, 50 % meaning +\d", out, re.MULTILINE)
    assert re.search(r"^Chosen on \d+ questions: .* On \d+ questions held out: ", out, re.MULTILINE)
    assert "shop: ranked as before." in out or "shop: ranked so from now on." in out
    code, out, _ = knowledge(*sweep, "--json")
    assert json.loads(out)["recorded"]["rerank"] == 0
    code, out, _ = knowledge("questions", "shop", "--out", "more.jsonl", "--json")
    assert json.loads(out)["file"] == "more.jsonl"
    code, out, _ = knowledge("rank", "shop", "--fusion", "ranks", "--rerank", "5", "--json")
    assert json.loads(out)["fusion"] == "ranks"
    code, out, _ = knowledge("rank", "shop")
    assert re.search(r"^rerank +5$", out, re.MULTILINE)
    assert knowledge("search", "shop", "What was painted by the neighbours?")[1].startswith("[1] ")


def test_what_makes_no_sense_is_refused(folder, knowledge):
    for arguments, message in {
        ("sync",): "There is nothing to sync. Add documents: tailor knowledge add NAME FOLDER.",
        ("sync", "shop"): "knowledge 'shop': nothing of that name was added here",
        (
            "sync",
            "--watch",
            "--json",
        ): "--watch tells what changes as it goes. Leave out --dry-run and --json.",
        (
            "evaluate",
            "shop",
            "--examples",
            "x.jsonl",
            "--no-rerank",
        ): "--max-chars and --no-rerank go with --sweep",
        ("evaluate", "shop", "--examples", "x.jsonl", "--sweep", "--max-chars", "a"): (
            "--max-chars 'a': expected numbers of characters, such as 300,900."
        ),
        ("rank", "shop"): "knowledge 'shop': nothing of that name was added here",
        ("questions", "shop", "--out", "x.jsonl"): "knowledge 'shop': nothing of that name was added here",
        (
            "add",
            "shop",
            "docs",
            "--set",
            "label",
        ): "--set 'label': expected KEY=VALUE, such as max_pages=100.",
    }.items():
        code, _, err = knowledge(*arguments)
        assert (code, message in err) == (2, True), err


@pytest.mark.skipif(os.name != "posix", reason="stops it by SIGINT")
def test_it_watches_until_it_is_stopped_and_tells_only_changes(folder, knowledge):
    assert knowledge("add", "shop", "docs")[0] == 0
    process = start(("knowledge", "sync", "--watch", "--every", "0.2s"), folder)
    try:
        for _ in range(5):
            assert process.stdout.readline()  # what the first sync says
        for _ in range(2):  # beside it
            assert knowledge("sync", "shop")[0] == 0
        (folder / "docs" / "new.md").write_text("Bikes are repaired on Mondays.")
        process.stdout.readline()  # the unreadable one
        lines = [process.stdout.readline() for _ in range(2)]
        assert "1 added" in "".join(lines)
    finally:
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate(timeout=30)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("progress", "elapsed", "text"),
    [
        (SyncProgress("wait", 0), 3.0, "waiting for another sync of it"),
        (SyncProgress("read", 1200), 3.0, "1,200 documents read"),
        (SyncProgress("embed", 64, 912), 2.0, "64 of 912 texts embedded, 32 a second, 26 s left"),
        (SyncProgress("embed", 0, 5), 0.0, "0 of 5 texts embedded"),
    ],
)
def test_progress_tells_rate_and_time_left(progress, elapsed, text):
    assert progress_text(progress, elapsed) == text
