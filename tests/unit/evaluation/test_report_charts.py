import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from scripted_arms import Scripted, classify_data

from tailorbird.evaluation.arms import Arm
from tailorbird.evaluation.calibration import calibrate, calibration_of
from tailorbird.evaluation.calibration_chart import reliability_plot
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.comparison import ArmResult
from tailorbird.evaluation.confusion_map import confusion_map, confusion_table
from tailorbird.evaluation.difference_chart import differences_plot
from tailorbird.evaluation.evaluate import Evaluation, Row
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.report import render_report
from tailorbird.evaluation.scatter_charts import cost_plot, latency_plot
from tailorbird.records import Completion


def compared(name, mean, half, p, **rest):
    return ArmResult(
        name,
        0.8,
        0.7,
        0.9,
        p_adjusted=p,
        difference=mean,
        difference_low=mean - half,
        difference_high=mean + half,
        **rest,
    )


def priced(name, score, cost):
    return ArmResult(name, score, score - 0.05, score + 0.05, cost_per_1k=cost)


def places(drawing, tag, attribute, style):
    found = ET.fromstring(drawing).iter(tag)
    return [float(e.get(attribute)) for e in found if e.get("class") == style]


# -- differences ------------------------------------------------------------------------------------


def test_differences_are_drawn_beside_the_line_of_none_and_the_band_of_the_margin():
    plot = differences_plot(
        [compared("worse", -0.2, 0.05, 0.001), compared("close", 0.01, 0.06, 1.0)], "best", None, 0.03
    )
    (zero,) = places(plot, "line", "x1", "zero")
    (start,), (width,) = places(plot, "rect", "x", "band"), places(plot, "rect", "width", "band")
    (worse,), (close,) = places(plot, "circle", "cx", "dot"), places(plot, "circle", "cx", "hollow")
    assert worse < start < zero < close < start + width
    assert start + width - zero == pytest.approx(zero - start, abs=0.2)
    assert "worse −20.0 points (−25.0 to −15.0); close +1.0 points (−5.0 to +7.0)" in plot
    assert "Difference of every arm to best, in points" in plot


def test_the_candidate_alone_has_no_differences_to_draw():
    assert differences_plot([ArmResult("only", 0.5, 0.4, 0.6)], "only", "only", 0.03) == ""


@pytest.mark.parametrize("mean", [-1.0, 0.0, 1.0])
def test_the_greatest_differences_stay_inside_the_plot(mean):
    (at,) = places(
        differences_plot([compared("a", mean, 0.0, 1.0)], "b", None, 0.03), "circle", "cx", "hollow"
    )
    assert 0 < at < 420


# -- cost -------------------------------------------------------------------------------------------


def test_names_of_ticks_do_not_run_into_each_other():
    arms = [priced("a", 0.0, 0.0), priced("b", 0.0, 1.5e-6), priced("c", 0.8, 1e-4), priced("d", 0.8, 0.05)]
    texts = [(float(t.get("x")), t.text) for t in ET.fromstring(cost_plot(arms, "d")).iter("text")]
    ticks = sorted((x, text) for x, text in texts if text == "free" or text.startswith("$"))
    assert [ticks[0][1], ticks[-1][1]] == ["free", "$0.1"]
    ends = [(x - 6.2 * len(text) / 2, x + 6.2 * len(text) / 2) for x, text in ticks]
    assert len(ends) >= 4
    assert all(right <= left for (_, right), (left, _) in pairwise(ends))


def test_dearer_arms_stand_further_right_and_free_ones_at_the_left_edge():
    plot = cost_plot([priced("free", 0.5, 0.0), priced("cheap", 0.7, 0.01), priced("dear", 0.9, 3.0)], "dear")
    assert places(plot, "circle", "cx", "front") == sorted(places(plot, "circle", "cx", "front"))
    texts = {t.text: float(t.get("x")) for t in ET.fromstring(plot).iter("text")}
    assert texts["free"] < texts["$0.01"] < texts["$1"]
    assert min(places(plot, "circle", "cx", "front")) == 52
    assert "No arm beats these in both: free, cheap, dear." in plot


def test_an_arm_that_is_dearer_and_worse_is_not_joined_to_the_front():
    plot = cost_plot([priced("good", 0.9, 0.01), priced("bad", 0.6, 1.0)], None)
    assert len(places(plot, "circle", "cx", "front")) == 1
    assert len(places(plot, "circle", "cx", "hollow")) == 1
    assert "No arm beats these in both: good." in plot


def test_where_nothing_costs_anything_cost_is_not_drawn():
    assert cost_plot([priced("a", 0.5, 0.0), ArmResult("failed", failed="down")], None) == ""


def test_the_smallest_costs_are_told_apart_on_the_axis():
    plot = ET.fromstring(cost_plot([priced("a", 0.5, 2e-6), priced("b", 0.7, 3e-5)], None))
    assert [t.text for t in plot.iter("text") if t.text.startswith("$")] == [
        "$0.0001",
        "$0.00001",
        "$0.000001",
    ]


def test_an_axis_over_many_powers_of_ten_names_only_some_of_them():
    arms = [priced(str(e), 0.5, 10.0**e) for e in range(-6, 5)]
    texts = [t for t in ET.fromstring(cost_plot(arms, None)).iter("text") if t.text.startswith("$")]
    assert 4 <= len(texts) <= 7


def test_latency_is_described_in_words():
    plot = latency_plot(
        [ArmResult("quick", 0.5, latency_p50_s=0.002), ArmResult("slow", 0.4, latency_p50_s=2.0)], ""
    )
    assert "quick 50.0 %, 2.0 ms; slow 40.0 %, 2.0 s. No arm beats these in both: quick." in plot


# -- calibration ------------------------------------------------------------------------------------


def test_answers_are_sorted_by_how_sure_the_model_was():
    found = calibrate([0.95, 0.85, 0.95, 0.35], [True, True, False, False])
    assert [(b.count, b.right) for b in found.bins] == [(1, 0.0), (1, 1.0), (2, 0.5)]
    assert (found.sure, found.right, found.count) == (pytest.approx(0.775), 0.5, 4)


def test_a_bin_holds_its_upper_edge():
    found = calibrate([0.0, 0.1, 0.1000001, 0.3, 0.7, 1.0], [True] * 6)
    assert [b.count for b in found.bins] == [2, 1, 1, 1, 1]


def row(sure, score, text="a"):
    chances = None if sure is None else {"a": sure, "b": 1 - sure}
    return Row("1", "q", "a", {"accuracy": score}, Completion(text, probabilities=chances))


def test_answers_without_a_probability_are_left_out():
    found = calibration_of(
        Evaluation((row(0.8, 1.0), row(None, 1.0), row(0.8, 0.0, "unheard of"))), "accuracy"
    )
    assert found.count == 1
    assert calibration_of(Evaluation((row(None, 1.0),)), "accuracy") is None


def test_points_above_the_diagonal_are_more_often_right_than_sure():
    found = calibrate([0.25] * 4, [True, True, True, False])
    (circle,) = ET.fromstring(reliability_plot("m", found)).iter("circle")
    diagonal = next(
        e for e in ET.fromstring(reliability_plot("m", found)).iter("line") if e.get("class") == "diagonal"
    )
    x1, y1, x2, y2 = (float(diagonal.get(k)) for k in ("x1", "y1", "x2", "y2"))
    on_line = y1 + (float(circle.get("cx")) - x1) / (x2 - x1) * (y2 - y1)
    assert float(circle.get("cy")) < on_line
    assert "25.0 % sure, 75.0 % right of 4" in reliability_plot("m", found)


# -- confusion --------------------------------------------------------------------------------------


def test_the_labels_that_are_confused_most_are_mapped():
    expected = ["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 5
    answered = ["a"] * 3 + ["b"] * 2 + ["b"] * 5 + ["c"] * 5 + ["d"] * 4 + ["b"]
    found = confusion_map(expected, answered, most=2)
    assert found.labels == ("a", "b")
    assert found.counts == ((3, 2, 0), (0, 5, 0))
    assert confusion_map(expected, answered).labels == ("a", "b", "d")


def test_answers_outside_the_map_are_counted_as_others():
    found = confusion_map(["a", "a", "b"], ["nonsense", "b", "b"])
    assert found.counts == ((0, 1, 1), (0, 1, 0))
    table = confusion_table("arm", found)
    assert "others" in table
    assert 'role="group"' in table


def test_without_mistakes_there_is_no_map():
    assert confusion_map(["a"], ["a"]) is None


def test_cells_are_shaded_by_the_share_of_their_row_and_say_their_number():
    found = confusion_map(["a"] * 10 + ["b"], ["a"] * 8 + ["b"] * 2 + ["b"])
    cells = re.findall(r'<td class="(\w+)">(\d+)</td>', confusion_table("arm", found))
    assert cells == [("hit4", "8"), ("miss1", "2"), ("hit5", "1")]


# -- in the report ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    data = classify_data()
    arms = [
        Arm("base", lambda: Scripted(0.3, "b")),
        Arm("tfidf_linear", lambda: Scripted(0.6, "t"), floor=True),
        Arm("few_shot", lambda: Scripted(0.8, "f")),
    ]
    return render_report(compare(arms, data, default_metrics(data.task), primary="accuracy"))


def test_the_report_has_every_plot(page):
    titles = re.findall(r"<figure><h3>([^<]*)</h3>", page)
    assert titles[:4] == [
        "Score and 95 % interval",
        "Difference to few_shot, in points",
        "Quality against latency",
        "Quality against cost",
    ]
    assert page.count('<table class="heat">') == 3


def test_a_baselines_numbers_are_not_drawn_as_probabilities(page):
    section = page.split("How sure, and how right")[1].split("</section>")[0]
    assert "How sure few_shot was, and how often right" in section
    assert "How sure base was" in section
    assert "tfidf_linear" not in section
    assert re.search(r"70.0 % sure on average, [\d.]+ % right: [\d.]+ points too (un)?sure\.", section)
