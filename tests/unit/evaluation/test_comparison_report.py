import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from scripted_arms import LABELS, Builds, Failing, Scripted, classify_data

from tailorbird.data.citing import cited, support_for
from tailorbird.data.task import Data, Task
from tailorbird.evaluation.arms import Arm
from tailorbird.evaluation.budget import Budget
from tailorbird.evaluation.charts import intervals_plot
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.comparison import ArmResult, money, p_value, percent, points, seconds
from tailorbird.evaluation.markup import escape, shortened
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.report import render_report, write_report
from tailorbird.evaluation.run_folder import load_run
from tailorbird.evaluation.scatter_charts import latency_plot, pareto_front
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example, Message, Passage, Request

VOID = {"meta", "br", "wbr", "link", "img", "hr"}


class Balance(HTMLParser):
    """Fails on tags that are not closed in order; collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def parsed(page):
    found = Balance()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


class Hostile(Scripted):
    """Answers, was shown and is called things that want to be markup."""

    def answer(self, requests):
        attack = "</td><script>alert('x')</script><img src=x onerror=alert(1)>"
        passage = Passage("p", "d<script>.md", attack, title='"><script>')
        return [
            Completion(attack, asked=Request((Message("user", attack),), evidence=(passage,)))
            for _ in requests
        ]


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = classify_data()
    arms = [
        Arm("base", lambda: Scripted(0.3, "b")),
        Arm("tfidf_linear", lambda: Scripted(0.6, "t"), floor=True),
        Arm("few_shot", lambda: Scripted(0.8, "f")),
        Arm("remote<script>", Failing),
    ]
    compare(
        arms,
        data,
        default_metrics(data.task),
        primary="accuracy",
        folder=folder,
        reproduce={"command": "tailor compare"},
    )
    return load_run(folder)


def test_the_report_is_drawn_from_a_finished_run_and_needs_nothing_else(classified, tmp_path):
    path = write_report(
        classified, None, tmp_path / "out", title="Shop", data_notes=["2 near duplicates removed."]
    )
    page = parsed(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "out" / "report.html"
    assert classified.verdict.sentence in page.text
    for words in ("Leaderboard", "Labels mixed up", "Answers side by side", "To reproduce", "tailor compare"):
        assert words in page.text
    assert "2 near duplicates removed." in page.text
    assert "failed and is not judged: The endpoint https://models.example does not answer" in page.text
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [a for a in page.attributes if a[1] == "src" or a[1].startswith("on")]
    assert [a[2] for a in page.attributes if a[1] == "href"] == ["#content"]
    assert "url(" not in path.read_text(encoding="utf-8")


def test_the_same_run_gives_the_same_page(classified):
    assert render_report(classified) == render_report(classified)


def test_hostile_text_is_shown_as_text():
    examples = tuple(Example.pair(f"<script>alert({i})</script>", "<b>x</b>") for i in range(8))
    data = Data(Task("answer", "Answer."), (), examples[:2], examples[2:])
    arms = [Arm("<script>evil()</script>", lambda: Hostile(1.0)), Arm("other", lambda: Hostile(1.0))]
    found = compare(
        arms, data, default_metrics(data.task), primary="token_f1", reproduce={"command": "<script>"}
    )
    page = render_report(found, title="<script>title</script>", data_notes=["<script>note</script>"])
    assert "<script" not in page
    assert "&lt;script&gt;alert(5)&lt;/script&gt;" in page
    assert "onerror=alert(1)>" not in page
    assert "script" not in parsed(page).tags


def test_failures_stand_side_by_side_with_what_each_arm_was_shown(classified):
    page = parsed(render_report(classified)).text
    assert "few_shot was right, others were wrong" in page
    assert "few_shot was wrong, another arm was right" in page
    assert "Every arm was wrong" in page
    assert "What few_shot was shown (2 messages, 1 passage)" in page
    assert "passage 1 · FAQ · faq.md" in page
    assert "70 % sure" in page


def test_cases_are_sorted_into_the_group_they_belong_to():
    class Fixed(Scripted):
        def __init__(self, wrong):
            super().__init__(1.0)
            self.wrong = wrong

        def answer(self, requests):
            numbers = [int(request.question.split()[-1]) for request in requests]
            return [Completion("wrong" if n in self.wrong else LABELS[n % 4]) for n in numbers]

    data = classify_data(20)
    arms = [Arm("good", lambda: Fixed({101, 102})), Arm("poor", lambda: Fixed({*range(40, 60), 102, 103}))]
    page = render_report(compare(arms, data, default_metrics(data.task), primary="accuracy"))
    groups = dict(re.findall(r"<h3>([^<]*)</h3><p class=\"quiet\">(.*?)(?=<h3>|</section>)", page))
    assert "message 103" in groups["good was right, others were wrong"]
    assert "message 101" in groups["good was wrong, another arm was right"]
    assert "message 102" in groups["Every arm was wrong: hard examples, or wrong labels"]
    assert "message 101" not in groups["good was right, others were wrong"]


def test_an_answer_that_is_right_in_part_is_not_called_right():
    class Fixed(Scripted):
        def __init__(self, text):
            super().__init__(1.0)
            self.text = text

        def answer(self, requests):
            return [Completion(self.text) for _ in requests]

    examples = tuple(Example.pair(f"How long, in case {n}?", "45 days") for n in range(8))
    data = Data(Task("answer", ""), (), examples[:2], examples[2:])
    arms = [Arm("half", lambda: Fixed("7 days")), Arm("none", lambda: Fixed("blue"))]
    page = parsed(render_report(compare(arms, data, default_metrics(data.task), primary="token_f1"))).text
    assert "half did best" in page
    assert "✗ wrong" in page
    assert "✓" not in page
    assert "was right" not in page


def test_confused_labels_are_counted(classified):
    page = render_report(classified)
    rows = classified.evaluations["few_shot"].rows
    pairs = [(r.expected, r.completion.text) for r in rows if r.expected != r.completion.text]
    expected, answered = pairs[0]
    assert f'<th scope="row">{expected} → <b>{answered}</b></th><td>{pairs.count(pairs[0])}</td>' in page


def test_refusals_have_their_table_for_answers_from_documents():
    class Shy(Scripted):
        def answer(self, requests):
            return [Completion(NOT_IN_DOCUMENTS) for _ in requests]

    examples = tuple(Example.pair(f"Q {i}", NOT_IN_DOCUMENTS if i < 4 else "yes") for i in range(10))
    data = Data(Task("answer", "Answer."), (), examples, examples)
    page = render_report(
        compare([Arm("shy", lambda: Shy(1.0))], data, default_metrics(data.task), primary="token_f1")
    )
    assert "<td>4 of 4</td><td>6 of 6</td><td>–</td>" in page
    assert "10 test messages also stand, word for word, in train or dev" in page
    assert "Labels mixed up" not in page


def test_what_answers_rest_on_is_shown_and_counted():
    class Citing(Scripted):
        def answer(self, requests):
            return [self.about(request) for request in requests]

        def about(self, request):
            number = int(request.question.split()[-1])
            asked = request.with_evidence((Passage("p", f"{number // 2}.md", f"It is {number}."),))
            if number == 0:
                return Completion(NOT_IN_DOCUMENTS, asked=asked, withheld="Eighty <b>")
            answer = Completion(f"It is {number}.", asked=asked)
            return cited(answer, support_for(answer))

    examples = tuple(Example.pair(f"Q {i}", "yes", document=f"{i // 3}.md") for i in range(10))
    data = Data(Task("answer", "Answer."), (), examples, examples)
    arm = Arm("citing", lambda: Citing(1.0))
    page = render_report(compare([arm], data, default_metrics(data.task), primary="token_f1"))
    right = sum(i // 2 == i // 3 for i in range(1, 10))
    assert f"<td>{right} of 9</td>" in page
    assert "It is 3. [1]" in page
    assert "withheld: Eighty &lt;b&gt;" in page


def test_a_comparison_in_which_nothing_ran_still_has_a_report():
    data = classify_data()
    found = compare([Arm("remote", Failing)], data, default_metrics(data.task), primary="accuracy")
    page = parsed(render_report(found))
    assert "No arm has been measured." in page.text
    assert "svg" not in page.tags
    stopped = compare(
        [Builds().arm("late", lambda: Scripted(1.0))],
        data,
        default_metrics(data.task),
        primary="accuracy",
        budget=Budget(0),
    )
    assert (
        "late was not measured. The budget was used up before this arm's turn."
        in parsed(render_report(stopped)).text
    )


def test_the_style_sheet_knows_dark_screens_phones_and_paper():
    css = (Path(__file__).parents[3] / "tailorbird" / "evaluation" / "report.css").read_text(encoding="utf-8")
    assert all(
        f"@media {when}" in css
        for when in ("screen and (prefers-color-scheme: dark)", "(max-width: 40rem)", "print")
    )
    assert "@import" not in css


def result(name, score, latency=None):
    return ArmResult(name, score, score - 0.03, score + 0.02, latency_p50_s=latency)


def test_plots_are_well_formed_and_mark_what_is_used():
    arms = [
        result("a & b", 0.9, 0.5),
        result("c", 0.7, 0.002),
        result("d", 0.65, 3.0),
        ArmResult("s", stopped=True),
    ]
    forest = ET.fromstring(intervals_plot(arms, "a & b"))
    assert len(forest.findall("circle")) == 3
    assert [c.get("class") for c in forest.findall("circle")] == ["dot use", "dot", "dot"]
    scatter = ET.fromstring(latency_plot(arms, "c"))
    assert sorted(c.get("class") for c in scatter.findall("circle")) == ["front", "front", "hollow"]
    assert "a & b" in [t.text for t in scatter.iter("text")]


def test_a_name_that_stands_away_from_its_point_is_joined_to_it():
    crowd = [
        result("far", 0.9, 0.5),
        *(result(f"an arm of a long name {n}", 0.5 + n / 5000, 0.002) for n in range(6)),
    ]
    scatter = ET.fromstring(latency_plot(crowd, None))
    points = {(c.get("cx"), c.get("cy")) for c in scatter.findall("circle")}
    leaders = [(e.get("x1"), e.get("y1")) for e in scatter.findall("line") if e.get("class") == "leader"]
    assert leaders
    assert set(leaders) <= points
    apart = ET.fromstring(latency_plot([result("a", 0.9, 0.5), result("b", 0.2, 0.002)], None))
    assert "leader" not in [e.get("class") for e in apart.findall("line")]


def test_higher_scores_are_drawn_further_right_and_inside_the_plot():
    circles = ET.fromstring(intervals_plot([result("a", 0.95), result("b", 0.31)], None)).findall("circle")
    left, right = sorted(float(c.get("cx")) for c in circles)
    assert 0 < left < right < 520
    assert float(circles[0].get("cx")) == right


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_equal_scores_and_the_ends_of_the_scale_can_be_drawn(score):
    arms = [ArmResult(n, score, score, score, latency_p50_s=0.1) for n in ("a", "b")]
    assert ET.fromstring(intervals_plot(arms, "a")) is not None
    assert ET.fromstring(latency_plot(arms, "a")) is not None


def test_labels_of_close_points_do_not_cover_each_other():
    arms = [result(f"technique_{i}", 0.80 + i / 1000, 0.1 + i / 1000) for i in range(4)]
    texts = [
        t for t in ET.fromstring(latency_plot(arms, None)).iter("text") if t.text.startswith("technique")
    ]
    places = {(round(float(t.get("x"))), round(float(t.get("y")))) for t in texts}
    assert len(places) == 4


def test_latency_is_not_drawn_where_none_was_measured():
    assert latency_plot([result("a", 0.5)], None) == ""


def test_the_front_holds_what_no_other_arm_beats():
    assert pareto_front([(3.0, 0.9), (1.0, 0.5), (2.0, 0.5), (4.0, 0.8)]) == [1, 0]


def test_numbers_are_written_for_people():
    assert (percent(0.8349), percent(None)) == ("83.5", "–")
    assert (points(-0.031), points(0.02)) == ("−3.1", "+2.0")
    assert (p_value(0.0001), p_value(0.0321), p_value(1.0)) == ("<.001", ".032", "1.000")
    assert (seconds(0.0042), seconds(0.25), seconds(12.34), seconds(600)) == (
        "4.2 ms",
        "250 ms",
        "12.3 s",
        "10.0 min",
    )
    assert (money(12.5), money(0.0123), money(0.0), money(None)) == ("$12.50", "$0.012", "$0", "–")


def test_control_characters_become_visible_and_long_texts_say_what_is_left_out():
    assert escape('a\x00b\ud800"\n') == "a\ufffdb\ufffd&quot;\n"
    assert shortened("x" * 12, 10) == "xxxxxxxxxx … (2 more characters)"
