from hostile_data import (
    contradictory,
    huge_rows,
    leaking,
    one_class,
    three_hundred_labels,
    tickets,
    with_bom_and_crlf,
    write,
)

from tailorbird.data import stored_examples
from tailorbird.data.findings import findings
from tailorbird.data.formats import read_examples
from tailorbird.data.keys import is_on_disk
from tailorbird.data.splits import split


def found(folder, rows, test=None):
    examples = read_examples(write(folder / "rows.jsonl", rows))
    given = read_examples(write(folder / "test.jsonl", test)) if test else None
    splits = split(examples, test_examples=given)
    return [str(p) for p in findings(splits, file="rows.jsonl", test="test.jsonl" if test else None)]


def test_of_sound_examples_nothing_is_said(tmp_path):
    assert found(tmp_path, tickets(120)) == []


def test_one_completion_for_all_is_told(tmp_path):
    assert found(tmp_path, one_class()) == [
        (
            "rows.jsonl: all examples have the completion 'delivery': always saying it is always right. Add examples "
            "of other completions; these tell no arms apart."
        )
    ]


def test_many_repeated_rows_are_told_and_few_are_not(tmp_path):
    rows = tickets(100)
    [told] = found(tmp_path, rows + rows[:50])
    assert told.startswith("rows.jsonl: 50 of 150 rows repeat another one; 100 examples are left.")
    assert found(tmp_path, rows + rows[:5]) == []


def test_examples_of_a_test_file_are_told_equal_and_nearly_equal(tmp_path):
    rows, test = leaking()
    [told] = found(tmp_path, rows, test)
    assert told.startswith("rows.jsonl: 36 of the examples equal one of test.jsonl, and 7 nearly equal one.")


def test_contradictions_bound_what_can_be_right(tmp_path):
    [told] = found(tmp_path, contradictory())
    assert told.startswith(
        "rows.jsonl: 30 prompts with contradicting completions: whatever answers them, it can agree with at most "
        "80.0 % of all examples."
    )


def test_contradictions_in_the_test_file_bound_every_score(tmp_path):
    test = [{"prompt": f"is it {n}?", "completion": c} for n in range(20) for c in ("yes", "no")[: 2 - n % 2]]
    told = found(tmp_path, tickets(80), test)
    assert any("no arm can be right on more than 66.7 % of this test" in line for line in told)


def test_labels_that_only_the_test_file_has_are_told(tmp_path):
    test = [*tickets(40, seed=7), *({"prompt": f"resale of {n}", "completion": "resale"} for n in range(5))]
    assert any(
        line.startswith("test.jsonl: 1 label only in the test file")
        for line in found(tmp_path, tickets(80), test)
    )


def test_too_many_or_too_rare_labels_are_told_where_they_become_free_answers(tmp_path):
    assert found(tmp_path, three_hundred_labels(3)) == []
    [told] = found(tmp_path, three_hundred_labels(2))
    assert told.startswith(
        "rows.jsonl: 600 examples with 300 different short completions are read as free answers."
    )
    answers = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(60)]
    assert found(tmp_path, answers) == []


def test_rows_that_no_small_model_reads_whole_are_told(tmp_path):
    [told] = found(tmp_path, huge_rows())
    assert told.startswith("rows.jsonl: 10 rows longer than 2,048 tokens")


def test_a_label_that_drowns_the_others_is_told(tmp_path):
    rows = tickets(200)
    for row in rows[:190]:
        row["completion"] = "delivery"
    [told] = found(tmp_path, rows)
    assert "have the label 'delivery'; always saying it scores as high" in told


def test_a_byte_order_mark_and_crlf_are_no_part_of_the_rows(tmp_path):
    rows = tickets(80)
    plain = read_examples(write(tmp_path / "rows.jsonl", rows))
    odd = read_examples(with_bom_and_crlf(tmp_path / "rows.csv", rows))
    assert [e.id for e in odd] == [e.id for e in plain]
    assert split(odd).fingerprint == split(plain).fingerprint


def test_examples_on_disk_are_judged_by_their_keys_and_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(stored_examples, "IN_MEMORY_BYTES", 2000)
    rows = contradictory() + huge_rows()
    assert is_on_disk(read_examples(write(tmp_path / "rows.jsonl", rows)))
    told = " ".join(found(tmp_path, rows))
    assert "prompts with contradicting completions" in told
    assert "longer than" not in told
