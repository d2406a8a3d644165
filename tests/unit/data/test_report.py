"""The dataset report: everything at once, each problem with its place and a fix."""

import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from tailorbird.data.formats import write_examples
from tailorbird.data.report import check
from tailorbird.errors import DataError, NotFound
from tailorbird.records import Example

LABELS = ("refund", "delivery", "login")


def examples(per_label=20, prompt="{}", completion="{}", seed=0):
    """Distinct prompts of unlike letters under three labels."""
    rng = random.Random(seed)
    return [
        Example.pair(
            prompt.format(f"{rng.getrandbits(70):x} {rng.getrandbits(70):x}"), completion.format(label)
        )
        for label in LABELS
        for _ in range(per_label)
    ]


@pytest.fixture
def report_on(tmp_path):
    def report_on(rows, test=None, **settings):
        path = tmp_path / "faq.jsonl"
        if isinstance(rows, str):
            path.write_text(rows, encoding="utf-8")
        else:
            write_examples(path, rows)
        if test is not None:
            settings["test"] = tmp_path / "test.jsonl"
            write_examples(settings["test"], test)
        return check(path, **settings)

    return report_on


def find(report, words):
    found = [p for p in report.problems if words in p.what]
    assert len(found) == 1, [str(p) for p in report.problems]
    return found[0]


def test_a_clean_file_has_no_problems(report_on):
    report = report_on(examples())
    assert report.problems == ()
    assert report.trainable
    assert (report.num_rows, report.num_examples, report.task) == (60, 60, "classify")
    assert report.labels == dict.fromkeys(LABELS, 20)
    assert (report.split.num_train, report.split.num_dev, report.split.num_test) == (36, 12, 12)
    assert report.split.num_leaking == 0


def test_lengths_are_counted_with_the_given_tokenizer_or_said_to_be_estimated(report_on):
    rows = [Example.pair("w " * n, "x" * n) for n in range(1, 101)]
    counted = report_on(rows, count_tokens=lambda text: len(text.split()) or 1)
    assert not counted.tokens_estimated
    lengths = counted.prompt_tokens
    assert (lengths.min, lengths.median, lengths.p95, lengths.max) == (1, 50, 95, 100)
    estimated = report_on(rows)
    assert estimated.tokens_estimated
    assert estimated.completion_tokens.max == 25
    assert "estimated: characters / 4" in estimated.to_text()
    assert "estimated" not in counted.to_text()


def test_all_bad_rows_are_listed_and_stop_training(report_on):
    good = "".join(json.dumps({"prompt": e.prompt, "completion": e.completion}) + "\n" for e in examples())
    report = report_on('{"prompt": "x"}\n' + good + "nonsense\n")
    errors = [p for p in report.problems if p.severity == "error"]
    assert [p.where for p in errors] == ["faq.jsonl:1", "faq.jsonl:62"]
    assert all(p.fix for p in errors)
    assert not report.trainable
    assert (report.num_rows, report.num_examples) == (62, 60)
    assert "Cannot be trained on until the errors are fixed." in report.to_text()


@pytest.mark.parametrize(("content", "num_rows"), [("", 0), ("[1]", 1), ("a,b\n1,2\n", 0), ("%PDF-1.4", 0)])
def test_a_file_that_gives_no_example_still_gives_a_report(report_on, content, num_rows):
    report = report_on(content)
    assert not report.trainable
    assert (report.num_rows, report.task, report.split, report.prompt_tokens) == (num_rows, None, None, None)
    assert report.to_text()


def test_few_rows_are_said_to_be_few(report_on):
    problem = find(report_on(examples(5)), "15 examples are few")
    assert problem.severity == "warning"
    assert "Label 50 or more" in problem.fix


def test_too_few_rows_to_split_is_an_error(report_on):
    report = report_on(examples()[:2])
    assert find(report, "cannot be split into 3 parts").severity == "error"
    assert not report.trainable


def test_repeated_rows_are_counted_with_their_lines(report_on):
    rows = examples()
    report = report_on([*rows, rows[2], Example.pair(rows[2].prompt.upper(), rows[2].completion)])
    assert report.num_duplicates == 2
    assert "lines 3, 61, 62" in find(report, "2 rows repeat an earlier one").what


def test_near_duplicates_are_groups_with_lines(report_on):
    rows = examples()
    report = report_on([*rows, Example.pair(rows[4].prompt + "s", rows[4].completion)])
    assert report.num_near_groups == 1
    assert "lines 5, 61" in find(report, "1 group of prompts are nearly the same").what


def test_contradictions_show_the_completions_and_their_lines(report_on):
    rows = examples()
    report = report_on([*rows, Example.pair(rows[0].prompt, "login")])
    problem = find(report, "has different completions")
    assert report.num_conflicts == 1
    assert problem.where == "faq.jsonl:1"
    assert "'refund' (line 1), 'login' (line 61)" in problem.what
    assert "to judge" in problem.fix


def test_many_contradictions_are_summed_up(report_on):
    rows = examples()
    report = report_on([*rows, *(Example.pair(e.prompt, "login") for e in rows[:9])])
    assert report.num_conflicts == 9
    assert find(report, "4 more prompts have contradicting completions")


def test_over_long_rows_are_found(report_on):
    rows = [*examples(), Example.pair("word " * 2000, "refund")]
    problem = find(report_on(rows), "1 row longer than 2,048 tokens (lines 61; the longest 2,502)")
    assert "Shorten" in problem.fix


@pytest.mark.parametrize("separator", [" ->", "\n\n###\n\n", "\nIntent:"])
def test_a_common_separator_of_the_prompts_is_found(report_on, separator):
    problem = find(
        report_on(examples(prompt="{}" + separator)), f"all prompts end with {separator.strip()!r}"
    )
    assert problem.fix.startswith("Delete it")


def test_a_common_beginning_of_the_prompts_is_found(report_on):
    assert find(report_on(examples(prompt="Classify this: {}")), "all prompts begin with 'Classify this: '")


@pytest.mark.parametrize("ending", [" END", "\n###"])
def test_a_common_ending_of_the_completions_is_found(report_on, ending):
    problem = find(
        report_on(examples(completion="{}" + ending)), f"all completions end with {ending.strip()!r}"
    )
    assert problem.fix.startswith("Delete it")


def test_a_full_stop_or_common_letters_are_no_end_mark(report_on):
    report = report_on(examples(completion="The topic is {}ing."))
    assert report.problems == ()


def test_white_space_around_completions_is_found(report_on):
    problem = find(report_on(examples(completion=" {}")), "60 completions with white space")
    assert "lines 1, 2, 3, 4, 5, …" in problem.what
    assert "Strip it" in problem.fix


def test_two_spellings_of_one_label_are_found(report_on):
    rows = [*examples(), *(Example.pair(e.prompt, "Log-In") for e in examples(1, seed=1))]
    rows += [Example.pair(e.prompt, "log in") for e in examples(1, seed=2)]
    assert "'Log-In' (3 rows), 'log in' (3 rows)" in find(report_on(rows), "spelled in different ways").what


def test_single_and_drowning_labels_are_found(report_on):
    rows = [Example.pair(e.prompt, "login") for e in examples(40)] + [Example.pair("the odd one", "rare")]
    report = report_on(rows)
    assert "'rare'" in find(report, "1 label with a single example").what
    assert "Add examples of the other labels." in find(report, "99% of the rows have the label 'login'").fix


def test_a_test_file_is_checked_for_leaks_and_unknown_labels(report_on):
    rows = examples()
    test = [rows[0], Example.pair(rows[1].prompt + "s", "refund"), Example.pair("another one", "unseen")]
    report = report_on(rows, test=test)
    assert report.num_removed_for_test == 2
    assert find(report, "2 rows equal or nearly equal to one of test.jsonl").severity == "warning"
    assert "'unseen'" in find(report, "1 label only in the test file").what
    assert (report.split.num_test, report.split.num_leaking) == (3, 0)
    assert report.trainable


def test_a_bad_test_file_stops_training(report_on, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    report = report_on(examples(), test=None)
    report = check(tmp_path / "faq.jsonl", test=tmp_path / "bad.jsonl")
    assert [p.where for p in report.problems if p.severity == "error"] == ["bad.jsonl:1"]


def test_documents_are_summed_up_and_unknown_ones_named(report_on, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Hello")
    (folder / "b.txt").write_text("you")
    (folder / "c.xls").write_text("x")
    rows = examples()
    rows[3] = Example.pair(rows[3].prompt, "refund", document="lost.md")
    rows[4] = Example.pair(rows[4].prompt, "refund", document="a.md")
    report = report_on(rows, documents=folder)
    assert (report.documents.num_documents, report.documents.num_chars) == (2, 10)
    assert report.documents.by_type == {".md": 1, ".txt": 1}
    assert [name for name, _ in report.documents.unreadable] == ["c.xls"]
    assert find(report, "files of type .xls are not read").where == "c.xls"
    problem = find(report, "1 row with a document that is not in docs (first 'lost.md')")
    assert problem.where == "faq.jsonl:4"
    assert "2 files (1 .md, 1 .txt), 10 characters, 1 unreadable" in report.to_text()


def test_examples_among_the_documents_are_an_error(report_on, tmp_path):
    found = [
        p.where
        for p in report_on(examples(), examples(), documents=tmp_path).problems
        if "lies among" in p.what
    ]
    assert found == ["faq.jsonl", "test.jsonl"]
    problem = find(report_on(examples(), documents=tmp_path), "where its answers would be looked up")
    assert (problem.severity, problem.fix) == ("error", "Move it out.")


def test_a_folder_without_documents_is_an_error(report_on, tmp_path):
    (tmp_path / "docs").mkdir()
    assert (
        find(report_on(examples(), documents=tmp_path / "docs"), "no document can be read").severity
        == "error"
    )


def test_the_report_is_plain_json(report_on):
    report = report_on([*examples(), *examples()[:1]])
    value = json.loads(json.dumps(report.to_json()))
    assert value["trainable"] is True
    assert value["problems"][0]["severity"] == "warning"
    assert value["split"]["fingerprint"] == report.split.fingerprint


def test_the_text_shows_the_facts_and_cuts_long_lists(report_on):
    text = report_on("{}\n" * 50).to_text(max_problems=3)
    assert text.count("error    faq.jsonl:") == 3
    assert "error    … and 47 more" in text
    assert "classification, 3 labels ('refund' 20 to 'login' 20)" in report_on(examples()).to_text()


def test_files_that_are_not_there_are_errors(tmp_path):
    with pytest.raises(NotFound):
        check(tmp_path / "none.jsonl")
    with pytest.raises(DataError):
        check(tmp_path)


def test_checking_imports_neither_torch_nor_transformers():
    code = "import sys, tailorbird.data.report, tailorbird.data.passages; "
    code += "print({'torch', 'transformers', 'sklearn'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )


def test_preferences_are_told_with_how_to_learn_from_them(report_on):
    paired = [replace(e, rejected="never mind", id="") for e in examples()]
    every = find(report_on(paired), "every example has a rejected answer")
    assert (every.severity, every.what.split(":")[0]) == ("info", "60 preferences")
    assert 'objective = "dpo" under [fine_tune] in tailor.toml' in every.fix
    some = find(report_on([*paired[:5], *examples()[5:]]), "with a rejected answer")
    assert some.what == "5 of 60 examples with a rejected answer."
    assert 'objective = "dpo" needs one in every example' in some.fix
