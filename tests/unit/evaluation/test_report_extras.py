import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scripted_arms import Builds, Scripted, classify_data
from test_comparison_report import parsed

from tailorbird.evaluation.ablation import ablated
from tailorbird.evaluation.break_even import Costed, break_evens, summary
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.comparison import Comparison
from tailorbird.evaluation.learning_curve import Measured, PowerLaw, learning_curve
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.report import render_report
from tailorbird.evaluation.report_extras import BOTTOM, LEFT, TOP, WIDTH, curve_plot
from tailorbird.evaluation.seed_spread import seed_spread

LAW = PowerLaw(0.2, 0.5, 0.1, 400)
RIGHT, FEWER = np.repeat([1.0, 0.0], [80, 20]), np.repeat([1.0, 0.0], [60, 40])


def curve(arm="few_shot<script>", sizes=(100, 200, 400)):
    dice = np.random.default_rng(0)
    measured = [
        Measured(size, draw, dice.random(300) < LAW.score(size)) for size in sizes for draw in range(3)
    ]
    return json.loads(json.dumps(learning_curve(arm, measured, resamples=100).to_json()))


@pytest.fixture(scope="module")
def extras():
    pairs = break_evens([Costed("a", RIGHT, 0.5, 1e-4), Costed("b", FEWER, 0.1, 2e-4)], margin=0.03)
    found = {
        "curve": [curve()],
        "ablation": [
            ablated("few_shot+fine_tune", "<b>fine_tune", RIGHT, FEWER, taken_from="few_shot").to_json()
        ],
        "seeds": [
            seed_spread("a", RIGHT, (0.8, 0.82), (0.7, 0.72)).to_json(),
            seed_spread("b", FEWER).to_json(),
        ],
        "seed_order": "The order may be another.",
        "notes": ["x failed: <i>out of memory"],
        "break_even": {"sentence": summary(pairs, "a"), "pairs": [pair.to_json() for pair in pairs]},
    }
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def comparison():
    data, builds = classify_data(), Builds()
    arms = [builds.arm("a", lambda: Scripted(0.9, "a")), builds.arm("b", lambda: Scripted(0.3, "b"))]
    return compare(arms, data, default_metrics(data.task), primary="accuracy")


def test_the_section_says_all_that_was_found_and_escapes_it(comparison, extras):
    page = render_report(replace(comparison, extras=extras))
    text = parsed(page).text
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert text.index("What more would buy") > text.index("Leaderboard")
    for said in (
        extras["curve"][0]["sentence"],
        "without <b>fine_tune",
        "−20.0 −",
        "The order may be another.",
        "x failed: <i>out of memory",
        "a pays back against b after about 4,000 questions",
        "no part of the verdict",
    ):
        assert said in text, said
    assert "±1.4" in text


def test_without_extras_the_report_is_as_it_was(comparison):
    assert "What more would buy" not in render_report(comparison)


def test_break_even_alone_says_nothing_of_measurements(comparison, extras):
    page = parsed(render_report(replace(comparison, extras={"break_even": extras["break_even"]}))).text
    assert "When it pays back" in page
    assert "Measured after the verdict" not in page


def test_a_comparison_with_extras_reads_back_equal_and_gives_the_same_page(comparison, extras):
    whole = replace(comparison, extras=extras)
    again = Comparison.from_json(json.loads(json.dumps(whole.to_json())))
    assert again.extras == extras
    assert render_report(again, comparison.evaluations) == render_report(whole)


def test_the_curve_is_inside_its_frame_and_rises_to_the_right():
    drawn = ET.fromstring(curve_plot(curve(), 0.4, 0.95))
    (band,) = drawn.findall("polygon")
    whole, beyond = drawn.findall("polyline")
    places = [tuple(map(float, at.split(","))) for at in band.get("points").split()]
    assert all(LEFT <= x <= WIDTH and TOP - 1 <= y <= BOTTOM + 1 for x, y in places)
    assert (whole.get("class"), beyond.get("class")) == ("curve", "edge")
    assert whole.get("points").split()[-1] == beyond.get("points").split()[0]
    heights = [float(at.split(",")[1]) for at in (whole.get("points") + " " + beyond.get("points")).split()]
    assert heights == sorted(heights, reverse=True)
    assert [c.get("class") for c in drawn.findall("circle")] == ["front"] * 3
    assert {"100", "200", "400", "800", "now"} <= {t.text for t in drawn.iter("text")}


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_points_without_a_law_and_the_ends_of_the_scale_can_be_drawn(score):
    measured = [Measured(size, 0, [score] * 50) for size in (100, 400)]
    found = learning_curve("a", measured).to_json()
    drawn = ET.fromstring(curve_plot(found, score, score))
    assert drawn.findall("polygon") == []
    assert len(drawn.findall("circle")) == 2
