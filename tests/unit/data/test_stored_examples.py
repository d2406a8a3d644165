"""Examples on disk behave like the tuple that a small file gives."""

import gzip
import json
import random

import pytest

from tailorbird.data import stored_examples
from tailorbird.data.formats import read_examples, scan, write_examples
from tailorbird.data.keys import is_on_disk, keys_of
from tailorbird.data.report import check
from tailorbird.data.splits import split
from tailorbird.data.stored_examples import StoredExamples
from tailorbird.errors import DataError
from tailorbird.records import Example, Message


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(stored_examples, "IN_MEMORY_BYTES", 2000)


def examples(count=120, seed=0):
    """Prompts far apart, three labels, a chat now and then."""
    rng = random.Random(seed)
    found = []
    for i in range(count):
        turns = [Message("user", f"{rng.getrandbits(90):x} {rng.getrandbits(90):x}")]
        if i % 10 == 0:
            turns = [
                Message("system", "Be brief."),
                Message("user", "Hi"),
                Message("assistant", "Yes?"),
                *turns,
            ]
        found.append(Example(tuple(turns), ("yes", "no", "maybe")[i % 3], file="x.jsonl", line=i + 1))
    return tuple(found)


def test_a_large_file_gives_the_examples_of_the_tuple(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    write_examples(path, examples())
    kept = read_examples(path)
    monkeypatch.setattr(stored_examples, "IN_MEMORY_BYTES", 2000)
    stored = read_examples(path)
    assert isinstance(kept, tuple)
    assert isinstance(stored, StoredExamples)
    assert tuple(stored) == kept == examples()
    assert (stored[5], stored[-1], tuple(stored[3:40:7])) == (kept[5], kept[-1], kept[3:40:7])
    assert tuple(stored[10:][::-2][1:3]) == kept[10:][::-2][1:3]
    assert kept[7] in stored
    for wrong in (120, -121):
        with pytest.raises(IndexError):
            stored[wrong]


def test_a_large_file_is_split_like_a_small_one(tmp_path, monkeypatch):
    path, test = tmp_path / "x.jsonl", tmp_path / "test.jsonl"
    rows = examples()
    twin = Example.pair(rows[3].prompt.upper() + "!", rows[3].completion)
    clash = Example.pair(rows[4].prompt, "another")
    write_examples(path, [*rows, twin, clash])
    near = Example.pair(rows[9].prompt + "s", "no")
    write_examples(test, [near, rows[8], *examples(20, seed=1), rows[8]])
    given = read_examples(test)
    found = []
    for limit in (10**9, 2000):
        monkeypatch.setattr(stored_examples, "IN_MEMORY_BYTES", limit)
        settings = [{}, {"seed": 3, "limit_dev": 5}, {"test_examples": given, "limit_test": 9}]
        found.append([split(read_examples(path), **each) for each in settings])
    for kept, stored in zip(*found, strict=True):
        assert is_on_disk(stored.train)
        assert not is_on_disk(kept.train)
        for part in ("train", "dev", "test"):
            assert tuple(getattr(stored, part)) == tuple(getattr(kept, part))
        assert stored.fingerprint == kept.fingerprint
        assert stored.conflicts == kept.conflicts
        assert stored.near_groups == kept.near_groups
        assert tuple(stored.removed) == kept.removed
        assert stored.num_removed == kept.num_removed
        assert stored.notes[:-1] == kept.notes
        assert "were not looked for, because it is large" in stored.notes[-1]


def test_of_a_large_test_file_equal_prompts_are_found_and_the_rest_is_said(tmp_path, small_memory):
    rows = examples()
    path, test = tmp_path / "x.jsonl", tmp_path / "test.jsonl"
    write_examples(path, rows)
    write_examples(test, [*examples(60, seed=1), Example.pair(rows[9].prompt.upper(), "no")])
    splits = split(read_examples(path), test_examples=read_examples(test))
    assert [(r.reason, r.example.id) for r in splits.removed] == [("in_test", rows[9].id)]
    assert splits.notes[-1].startswith("Near-duplicates of the test file were not looked for")


def test_a_large_set_leaves_out_what_nearly_equals_a_small_test_set(tmp_path, small_memory, monkeypatch):
    monkeypatch.setattr("tailorbird.data.leakage.PIECE_CHARS", 500)
    rows = examples()
    write_examples(tmp_path / "x.jsonl", rows)
    test = [Example.pair(rows[99].prompt + "s", "no"), Example.pair(rows[98].prompt, "no")]
    splits = split(read_examples(tmp_path / "x.jsonl"), test_examples=test)
    assert [(r.reason, r.example.id) for r in splits.removed] == [
        ("in_test", rows[98].id),
        ("near_test", rows[99].id),
    ]
    assert splits.removed[-1:] == [splits.removed[1]]
    assert len(splits.train) + len(splits.dev) == 118
    assert not {rows[98], rows[99]} & {*splits.train, *splits.dev}


def test_the_report_on_a_large_file_says_what_it_did_not_do(tmp_path, small_memory):
    path = tmp_path / "x.jsonl"
    rows = examples()
    write_examples(path, [*rows, rows[0], Example.pair(rows[5].prompt, "never")])
    report = check(path)
    assert (report.num_examples, report.num_duplicates, report.num_conflicts) == (122, 1, 1)
    assert report.split.num_leaking == 0
    found = [p for p in report.problems if "near-duplicates were not looked for among 122 examples" in p.what]
    assert [p.severity for p in found] == ["info"]
    assert any("Near-duplicates within the file were not looked for" in note for note in report.split.notes)


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.jsonl.gz"])
def test_files_that_cannot_be_read_in_place_are_unpacked_onto_disk(tmp_path, small_memory, name):
    rows = [{"prompt": f"number {i}", "completion": f"answer {i} é"} for i in range(500)]
    if name.endswith("json"):
        (tmp_path / name).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif name.endswith("csv"):
        lines = ["prompt,completion", *(f"{r['prompt']},{r['completion']}" for r in rows)]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    else:
        with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    stored = read_examples(tmp_path / name)
    assert isinstance(stored, StoredExamples)
    assert [(e.prompt, e.completion, e.file) for e in stored] == [
        (r["prompt"], r["completion"], name) for r in rows
    ]
    assert stored[499].line == (501 if name.endswith("csv") else 500)
    assert [e.id for e in stored] == [keys_of(stored).id(i) for i in range(500)]


def test_named_columns_are_used_again_when_a_row_is_read(tmp_path, small_memory):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": f"l{i}"}) + "\n" for i in range(200)))
    stored = read_examples(path)
    assert (stored[150].prompt, stored[150].completion) == ("t150", "l150")


def test_a_conversation_of_several_examples_is_read_part_by_part(tmp_path, small_memory):
    turns = [("user", "a", None), ("assistant", "b", 1), ("user", "c", None), ("assistant", "d", 0.5)]
    messages = [{"role": r, "content": c * 200, **({} if w is None else {"weight": w})} for r, c, w in turns]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for _ in range(9)))
    stored = read_examples(path)
    assert len(stored) == 18
    assert [(e.completion[0], e.weight, e.line) for e in stored[2:4]] == [("b", 1.0, 2), ("d", 0.5, 2)]


def test_a_file_that_is_changed_while_it_is_in_use_is_an_error(tmp_path, small_memory):
    path = tmp_path / "x.jsonl"
    write_examples(path, examples())
    stored = read_examples(path)
    path.write_text("nothing\n")
    with pytest.raises(
        DataError, match=r"^x\.jsonl: the file was changed while it was in use; .* start again\.$"
    ):
        stored[0]


@pytest.mark.slow
def test_ten_megabytes_are_kept_in_a_few(tmp_path, monkeypatch):
    import tracemalloc

    path = tmp_path / "x.jsonl"
    with path.open("w") as file:
        file.writelines(
            json.dumps({"prompt": f"{i} " + "word " * 800, "completion": f"{i}"}) + "\n" for i in range(2500)
        )
    assert path.stat().st_size > 10_000_000
    monkeypatch.setattr(stored_examples, "IN_MEMORY_BYTES", 2**20)
    tracemalloc.start()
    try:
        found = scan(path)
        splits = split(found.examples)
        assert len(splits.train) == 1500
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
