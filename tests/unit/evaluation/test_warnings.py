import json
from dataclasses import replace

from scripted_arms import CLASSIFY, LABELS, Scripted, Wrong, classify_data, compared, messages
from test_comparison_report import parsed

from tailorbird.data.problems import Problem
from tailorbird.data.task import Data, Task
from tailorbird.evaluation.openings import Opening, Openings
from tailorbird.evaluation.report import render_report
from tailorbird.evaluation.warnings import script_of, warnings_of
from tailorbird.records import Completion, Example


def kinds(found):
    return [(warned["kind"], warned["level"]) for warned in found]


def test_of_sound_data_nothing_is_said():
    data = classify_data(120)
    found = compared(data, good=Wrong(101), floor=Wrong(*range(40, 200)))
    assert warnings_of(found, data) == []


def test_one_completion_and_few_examples_are_severe():
    data = Data(CLASSIFY, messages(0, 40), messages(40, 100), messages(100, 120)[::4])
    found = warnings_of(compared(data, good=Wrong(), other=Wrong()), data)
    assert kinds(found)[:2] == [("one_completion", "severe"), ("too_few", "severe")]
    assert found[0]["sentence"] == "All 5 test examples expect 'card_lost': this test tells no arms apart."
    assert found[1]["sentence"].startswith("5 test examples show only differences of about ")


def test_the_smallest_difference_that_a_small_test_shows_is_told():
    data = classify_data(30)
    [found] = warnings_of(compared(data, good=Wrong(), other=Wrong(*range(40, 200))), data)
    assert (found["kind"], found["level"]) == ("too_few", "warning")
    assert "30 test examples show only differences of about 24 points or more" in found["sentence"]
    one = classify_data(1)
    told = warnings_of(compared(one, good=Wrong(), other=Wrong()), one)
    assert "1 test example cannot show any difference between arms." in told[0]["sentence"]


def test_few_documents_are_told_beside_many_examples():
    test = tuple(replace(e, document=f"{i % 8}.md") for i, e in enumerate(messages(100, 220)))
    data = replace(classify_data(), test=test)
    found = warnings_of(compared(data, good=Wrong(101), other=Wrong(*range(40, 230))), data)
    assert ("too_few", "severe") in kinds(found)
    assert found[0]["sentence"].startswith("120 test examples, about 8 documents, show only")


def test_labels_that_stand_in_no_training_example_are_told():
    data = classify_data(120)
    data = replace(data, train=tuple(e for e in data.train if e.completion != "refund") * 2)
    found = {
        w["kind"]: w for w in warnings_of(compared(data, good=Wrong(101), other=Wrong(*range(300))), data)
    }
    assert found["unseen_labels"]["sentence"] == (
        "1 label in the test and in no training example ('refund'): what learns from examples gets 30 test examples "
        "wrong."
    )


def test_more_labels_than_examples_can_teach_are_told():
    data = replace(classify_data(120), train=messages(0, 8))
    found = {
        w["kind"]: w for w in warnings_of(compared(data, good=Wrong(101), other=Wrong(*range(300))), data)
    }
    assert found["few_per_label"]["sentence"].startswith(
        "4 labels with 2.0 training examples each on average"
    )


def test_that_nothing_was_learnt_is_told():
    class Always(Scripted):
        def answer(self, requests):
            return [Completion(LABELS[0]) for _ in requests]

    data = classify_data(120)
    found = warnings_of(compared(data, one=Always(1.0), two=Wrong(*range(40, 190))), data)
    assert kinds(found) == [("nothing_learnt", "warning")]
    assert (
        "No arm is clearly better than always saying 'card_lost', which is right on 25.0 %"
        in found[0]["sentence"]
    )


def test_requests_that_an_arm_did_not_see_whole_are_told():
    class Cutting(Wrong):
        def answer(self, requests):
            answers = super().answer(requests)
            return [replace(a, dropped=("passage 3",)) if i % 2 else a for i, a in enumerate(answers)]

    data = classify_data(120)
    found = warnings_of(compared(data, one=Cutting(101), two=Wrong(*range(40, 200))), data)
    assert kinds(found) == [("left_out", "warning")]
    assert (
        found[0]["sentence"] == "one did not see 60 of 120 test requests whole; left out, for one: passage 3"
    )


def test_scores_of_mixed_scripts_are_told_apart():
    def said(e, i):
        return Example.pair(f"сообщение {e.prompt.split()[-1]}" if i < 40 else e.prompt, e.completion)

    test = tuple(said(e, i) for i, e in enumerate(messages(100, 220)))
    data = replace(classify_data(), test=test)
    found = warnings_of(compared(data, one=Wrong(*range(100, 140)), two=Wrong(*range(40, 230))), data)
    assert kinds(found) == [("scripts", "warning")]
    assert found[0]["sentence"] == (
        "The test mixes scripts (80 in Latin, 40 in Cyrillic), and one score hides the difference: one Latin 100.0 %, "
        "Cyrillic 0.0 %; two Latin 0.0 %, Cyrillic 0.0 %."
    )


def test_scripts_are_those_of_most_letters():
    texts = {
        "Where is 我?": "Latin",
        "我的包裹在哪里": "Chinese or Japanese",
        "注文はどこですか": "Chinese or Japanese",
        "주문이 어디에 있나요": "Hangul",
        "أين طلبي": "Arabic",
        "πού είναι": "Greek",
        "मेरा पार्सल": "Devanagari",
        "": "",
        "12 + 3 = 15 🙂": "",
    }
    assert {text: script_of(text) for text in texts} == texts


def test_shared_documents_are_a_note_and_repeated_messages_a_warning():
    def about(examples):
        return tuple(replace(e, document=f"{i}.md") for i, e in enumerate(examples))

    data = classify_data(120)
    data = replace(data, train=about(data.train), test=about(data.test))
    found = warnings_of(compared(data, one=Wrong(101), two=Wrong(*range(40, 230))), data)
    assert kinds(found) == [("shared_documents", "note")]
    assert found[0]["sentence"].startswith(
        "40 of 120 test examples are about documents that training examples know"
    )
    repeated = replace(classify_data(120), train=messages(95, 135))
    found = warnings_of(compared(repeated, one=Wrong(101), two=Wrong(*range(40, 230))), repeated)
    assert kinds(found) == [("repeated_in_test", "warning")]
    assert found[0]["sentence"].startswith("35 test messages of 120 also stand in train or dev")


def test_problems_of_the_data_are_passed_on_and_the_gravest_stand_first():
    data = classify_data(5)
    problem = Problem("warning", "a.jsonl", "3 rows repeat another one.", "Delete them.")
    found = warnings_of(compared(data, one=Wrong(), two=Wrong()), data, [problem])
    assert ("data", "warning") in kinds(found)
    assert "a.jsonl: 3 rows repeat another one. Delete them." in [w["sentence"] for w in found]
    assert [level for _, level in kinds(found)] == sorted([level for _, level in kinds(found)])


def test_free_answers_have_no_labels_to_warn_of():
    examples = tuple(Example.pair(f"message {i}", f"answer {i}") for i in range(200))
    data = Data(Task("answer", "Answer."), examples[:40], examples[40:80], examples[80:])
    assert warnings_of(compared(data, one=Wrong(), two=Wrong()), data) == []


def test_the_report_shows_them_below_the_verdict_escaped_and_json_holds_them():
    data = classify_data(30)
    found = compared(data, good=Wrong(), other=Wrong(*range(40, 200)))
    problem = Problem("warning", "<script>.jsonl", "odd rows.")
    opened = Openings(tuple(Opening("d", "r", "b", ("a",)) for _ in range(2)), 30)
    found = replace(found, warnings=warnings_of(found, data, [problem]), openings=opened.to_json())
    page = render_report(found)
    text = parsed(page).text
    assert "<script" not in page
    assert (
        text.index(found.verdict.headline[:20])
        < text.index("Before you rely on this")
        < text.index("Leaderboard")
    )
    assert "&lt;script&gt;.jsonl: odd rows." in page
    assert "This test set has been opened 2 times (2 arms in all)" in text
    row = json.loads(json.dumps(found.to_json()))
    assert [w["kind"] for w in row["warnings"]] == ["too_few", "data"]
    assert row["openings"]["count"] == 2
    assert "Before you rely on this" not in render_report(replace(found, warnings=(), openings={}))


def test_notes_alone_are_no_alarm():
    note = {
        "kind": "shared_documents",
        "level": "note",
        "sentence": "9 of 9 examples are about known documents.",
    }
    data = classify_data(120)
    text = parsed(render_report(replace(compared(data, one=Wrong()), warnings=[note]))).text
    assert "What the scores are of" in text
    assert "Before you rely on this" not in text
