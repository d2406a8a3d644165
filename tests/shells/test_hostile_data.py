"""Ten data sets that would mislead: each is refused, or terminal, comparison.json and report say what is odd."""

import json
import re

from command_line import tailor
from hostile_data import (
    all_duplicates,
    contradictory,
    empty_completions,
    five_examples,
    huge_rows,
    leaking,
    mixed_languages,
    one_class,
    three_hundred_labels,
    tickets,
    with_bom_and_crlf,
    write,
)


def compared(folder, rows, *more, arms="majority,nearest"):
    """Compares floors on the rows: what the terminal said, the JSON, and the text of the report."""
    write(folder / "rows.jsonl", rows)
    command = ("compare", "--examples", "rows.jsonl", "--arms", arms, "--out", "out", *more)
    code, out, err = tailor(*command, folder=folder)
    assert (code, err) == (0, "")
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    page = re.sub("</?code>", "`", page.replace("&nbsp;", " ").replace("&#x27;", "'"))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    return out, json.loads((folder / "out" / "comparison.json").read_text()), text


def refused(folder, rows):
    write(folder / "rows.jsonl", rows)
    code, _, err = tailor("compare", "--examples", "rows.jsonl", "--arms", "majority,nearest", folder=folder)
    assert code == 2
    return err


def warned_everywhere(found, words, kind):
    """Whether the terminal, the JSON and the report near the verdict say it."""
    out, row, text = found
    [sentence] = [w["sentence"] for w in row["warnings"] if w["kind"] == kind and words in w["sentence"]]
    assert f"Warning: {sentence}" in out
    assert text.index("Before you rely on this") < text.index(sentence) < text.index("Leaderboard")
    return row


def test_one_class_gives_no_winner(tmp_path):
    found = compared(tmp_path, one_class())
    row = warned_everywhere(found, "this test tells no arms apart", "one_completion")
    warned_everywhere(found, "all examples have the completion 'delivery'", "data")
    assert row["verdict"]["kind"] == "undecided"
    assert row["verdict"]["sentence"].startswith("Undecided: all 16 test examples expect 'delivery'")
    assert row["verdict"]["sentence"] in found[0]


def test_five_examples_show_no_difference_and_no_winner(tmp_path):
    found = compared(tmp_path, five_examples())
    row = warned_everywhere(found, "1 test example cannot show any difference between arms", "too_few")
    assert row["verdict"]["kind"] == "undecided"
    assert row["minimum_detectable_difference"] == 1.0


def test_all_duplicates_are_refused(tmp_path):
    err = refused(tmp_path, all_duplicates())
    assert "1 example cannot be split into 3 parts" in err
    assert "60 rows, of which 59 repeat another" in err


def test_three_hundred_labels_are_more_than_the_examples_can_teach(tmp_path):
    found = compared(tmp_path, three_hundred_labels(), "--limit-test", "60", arms="majority,blank")
    row = warned_everywhere(found, "300 labels with 2.2 training examples each on average", "few_per_label")
    warned_everywhere(found, "No arm is clearly better than always saying", "nothing_learnt")
    assert row["verdict"]["kind"] == "undecided"


def test_labels_that_training_never_shows_are_told(tmp_path):
    write(
        tmp_path / "test.jsonl",
        [*tickets(60, 8), *({"prompt": f"sell {n}", "completion": "resale"} for n in range(6))],
    )
    found = compared(tmp_path, tickets(80), "--test", "test.jsonl")
    warned_everywhere(found, "1 label in the test and in no training example ('resale')", "unseen_labels")
    warned_everywhere(found, "1 label only in the test file: 'resale'", "data")


def test_empty_completions_are_refused_with_their_line(tmp_path):
    err = refused(tmp_path, empty_completions())
    assert "rows.jsonl:1: 'completion' is empty; expected some text" in err
    assert "9 more problems" in err


def test_huge_rows_are_told_and_so_is_what_did_not_read_them_whole(tmp_path):
    found = compared(tmp_path, huge_rows())
    warned_everywhere(found, "10 rows longer than 2,048 tokens", "data")
    row = warned_everywhere(found, "nearest did not see", "left_out")
    [cut] = [w["sentence"] for w in row["warnings"] if w["kind"] == "left_out"]
    assert cut.endswith("left out, for one: the message but for its first 256 tokens")


def test_mixed_languages_have_scores_of_their_own(tmp_path):
    row = warned_everywhere(compared(tmp_path, mixed_languages()), "The test mixes scripts", "scripts")
    [sentence] = [w["sentence"] for w in row["warnings"] if w["kind"] == "scripts"]
    latin, cyrillic = map(
        float, re.search(r"nearest Latin ([\d.]+) %, Cyrillic ([\d.]+) %", sentence).groups()
    )
    assert latin > 90 > 70 > cyrillic


def test_a_test_file_that_stands_in_training_is_taken_out_of_it_and_told(tmp_path):
    rows, test = leaking()
    write(tmp_path / "test.jsonl", test)
    found = compared(tmp_path, rows, "--test", "test.jsonl")
    row = warned_everywhere(
        found, "36 of the examples equal one of test.jsonl, and 7 nearly equal one", "data"
    )
    assert row["data"]["num_train"] + row["num_dev"] == len(rows) - 43
    assert row["data"]["repeated_in_test"] == 0


def test_examples_of_documents_that_training_knows_are_a_note_in_the_report(tmp_path):
    rows = [{**row, "document": f"{i // 6}.md"} for i, row in enumerate(tickets(300))]
    out, row, text = compared(tmp_path, rows, arms="majority,blank")
    [note] = [w for w in row["warnings"] if w["kind"] == "shared_documents"]
    assert note["level"] == "note"
    assert note["sentence"] in text
    assert note["sentence"] not in out


def test_contradictory_labels_bound_what_can_be_right(tmp_path):
    found = compared(tmp_path, contradictory())
    warned_everywhere(found, "it can agree with at most 80.0 % of all examples", "data")


def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path):
    write(tmp_path / "rows.jsonl", tickets(80))
    with_bom_and_crlf(tmp_path / "rows.csv", tickets(80))
    runs = []
    for file in ("rows.jsonl", "rows.csv"):
        command = ("compare", "--examples", file, "--arms", "majority,nearest", "--json")
        code, out, _ = tailor(*command, folder=tmp_path)
        assert code == 0
        runs.append(json.loads(out))
    assert runs[0]["reproduce"]["data"] == runs[1]["reproduce"]["data"]
    assert [a["score"] for a in runs[0]["arms"]] == [a["score"] for a in runs[1]["arms"]]
    assert [w["kind"] for w in runs[1]["warnings"]] == ["too_few"]
