import numpy as np

from tailorbird.data.task import Data, Task
from tailorbird.evaluation.changes import NOTHING, Made, what_changed
from tailorbird.evaluation.run_record import RunRecord, load_examples, load_record, save_examples, save_record
from tailorbird.records import Example

REPRODUCE = {
    "base": "starter",
    "seed": 0,
    "data": {"task": "t", "train": "a", "dev": "b", "test": "c", "documents": ""},
    "arms": {"few_shot": "k1"},
    "packages": {"torch": "2.11"},
    "python": "3.12.1",
}
RECORD = RunRecord("run", "starter", recipes={"few_shot": [{"technique": "few_shot", "k": 5, "seed": 0}]})


def pairs(*numbers, label=""):
    return tuple(Example.pair(f"question {n}", f"answer {n}{label}") for n in numbers)


def kept(folder, train, test=()):
    folder.mkdir()
    save_examples(folder, Data(Task("answer", ""), train, pairs(90), test))
    return load_examples(folder)


def test_where_nothing_differs_that_is_said():
    assert what_changed(Made(REPRODUCE, RECORD), Made(dict(REPRODUCE), RECORD)) == [NOTHING]


def test_base_seed_task_documents_and_packages_are_told():
    now = {
        **REPRODUCE,
        "base": "hf:org/name",
        "seed": 3,
        "data": {**REPRODUCE["data"], "task": "other", "documents": "d"},
        "packages": {"torch": "2.12", "peft": "0.19"},
        "python": "3.13.0",
    }
    assert what_changed(Made(REPRODUCE), Made(now)) == [
        "Base: starter → hf:org/name.",
        "Seed: 0 → 3.",
        "Task: the instruction, the labels or the most tokens of an answer are others.",
        "Documents: there are some now, and were none.",
        "Packages: peft none → 0.19, torch 2.11 → 2.12, Python 3.12.1 → 3.13.0.",
    ]


def test_documents_that_hold_something_else_are_told_and_a_place_that_is_another_too():
    some = {**REPRODUCE, "data": {**REPRODUCE["data"], "documents": "x"}}
    other = {**REPRODUCE, "data": {**REPRODUCE["data"], "documents": "y"}}
    assert what_changed(Made(some), Made(other)) == ["Documents: their content is another."]
    assert what_changed(Made(some), Made(REPRODUCE)) == ["Documents: there are none now."]
    places = [RunRecord("run", documents=place) for place in ("old", "new")]
    assert what_changed(Made(some, places[0]), Made(other, places[1])) == ["Documents: old → new."]


def test_examples_are_counted_as_added_removed_and_relabelled_in_every_part(tmp_path):
    then = kept(tmp_path / "then", pairs(*range(20)), pairs(50, 51))
    now = kept(
        tmp_path / "now", (*pairs(*range(2, 18)), *pairs(18, 19, label="!"), *pairs(30, 31, 32)), pairs(50)
    )
    found = what_changed(Made(REPRODUCE, parts=then), Made(REPRODUCE, parts=now))
    assert found == [
        "Examples: 3 added, 3 removed, 2 relabelled.",
        "Examples to learn from: 20 → 21, 3 added, 2 removed, 2 relabelled.",
        "Examples to test: 2 → 1, 1 removed.",
    ]


def test_examples_that_only_moved_between_parts_are_neither_added_nor_removed(tmp_path):
    then = kept(tmp_path / "then", pairs(1, 2), pairs(3))
    now = kept(tmp_path / "now", pairs(1, 3), pairs(2))
    found = what_changed(Made(REPRODUCE, parts=then), Made(REPRODUCE, parts=now))
    assert found == [
        "Examples to learn from: 2 → 2, 1 added, 1 removed.",
        "Examples to test: 1 → 1, 1 added, 1 removed.",
    ]


def test_where_no_ids_were_kept_the_hashes_tell_which_part_is_another():
    now = {**REPRODUCE, "data": {**REPRODUCE["data"], "train": "z"}}
    assert what_changed(Made(REPRODUCE), Made(now)) == [
        "Examples to learn from: others; which ones was not kept."
    ]


def test_settings_of_an_arm_are_told_one_by_one():
    now = {**REPRODUCE, "arms": {"few_shot": "k2", "new": "n"}}
    steps = [{"technique": "few_shot", "k": 3, "seed": 0, "select": "mmr"}]
    record = RunRecord("run", "starter", recipes={"few_shot": steps, "new": []})
    assert what_changed(Made(REPRODUCE, RECORD), Made(now, record)) == [
        "few_shot: k 5 → 3, select unknown → mmr."
    ]
    longer = RunRecord("run", recipes={"few_shot": [*steps, {"technique": "fine_tune"}]})
    assert what_changed(Made(REPRODUCE, RECORD), Made(now, longer)) == [
        "few_shot: few_shot → few_shot+fine_tune."
    ]
    assert what_changed(Made(REPRODUCE), Made(now)) == ["few_shot: other settings; which ones was not kept."]


def test_a_base_of_the_same_name_that_is_another_model_is_told():
    now = {**REPRODUCE, "arms": {"few_shot": "k2"}}
    assert what_changed(Made(REPRODUCE, RECORD), Made(now, RECORD)) == [
        "few_shot: the base is another model of the same name."
    ]


def test_a_seed_that_every_step_got_is_told_once():
    now = {**REPRODUCE, "seed": 1, "arms": {"few_shot": "k2"}}
    record = RunRecord("run", recipes={"few_shot": [{"technique": "few_shot", "k": 5, "seed": 1}]})
    assert what_changed(Made(REPRODUCE, RECORD), Made(now, record)) == ["Seed: 0 → 1."]


def test_a_record_is_read_back_and_what_is_damaged_or_absent_is_none(tmp_path):
    save_record(tmp_path, RECORD)
    assert load_record(tmp_path) == RECORD
    (tmp_path / "run.json").write_text('{"name": "run", "of a later version": 1}')
    assert load_record(tmp_path) == RunRecord("run")
    for text in ("{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        assert load_record(tmp_path) is None
    assert load_record(tmp_path / "nowhere") is None
    assert load_examples(tmp_path) is None
    (tmp_path / "examples.npz").write_bytes(b"no archive")
    assert load_examples(tmp_path) is None


def test_what_was_kept_of_examples_can_hold_no_objects(tmp_path):
    np.savez(tmp_path / "examples.npz", train_ids=np.array([object()], dtype=object))
    assert load_examples(tmp_path) is None
