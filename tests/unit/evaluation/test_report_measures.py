import re
from dataclasses import replace

import pytest
from scripted_arms import Builds, Scripted, classify_data
from test_comparison_report import parsed
from test_predicting import Telling

from tailorbird.evaluation.arms import Arm
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import METRICS, default_metrics
from tailorbird.evaluation.report import render_report

DATA = classify_data()


@pytest.fixture(scope="module")
def comparison():
    metrics = {**default_metrics(DATA.task), "chrf": METRICS["chrf"], "own <b>": METRICS["valid"]}
    arms = [
        Builds().arm("tfidf_linear", lambda: Scripted(0.6, "t"), floor=True),
        Arm("base", lambda: Telling(0.3, "b")),
        Arm("remote", lambda: Scripted(0.8, "r")),
    ]
    return compare(arms, DATA, metrics, primary="accuracy")


def section_of(page, title="Other measures"):
    return re.search(rf"<section><h2>{title}</h2>.*?</section>", page, re.DOTALL)[0]


def test_all_measures_stand_in_one_table_with_what_they_say_below(comparison):
    part = section_of(render_report(comparison))
    head = re.findall(r"<th scope=\"col\">(.*?)</th>", part)
    assert head[:4] == ["arm", "macro f1, %", "invalid rate, %", "calibration error, %"]
    assert {"brier", "perplexity", "bits per byte", "chrf, %", "own &lt;b&gt;, %"} <= set(head)
    assert "valid, %" not in head
    for name in head[1 : head.index("own &lt;b&gt;, %") + 1]:
        assert f"<dt>{name.removesuffix(', %')}</dt><dd>" in part
    assert "A metric of your own." in part


def test_the_numbers_are_those_of_the_arms_and_dashes_are_explained(comparison):
    part = section_of(render_report(comparison))
    base = comparison.arm("base").secondary
    [line] = [r for r in re.findall(r"<tr>(.*?)</tr>", part) if '"name">base<' in r][:1]
    assert f"<td>{base['macro_f1'] * 100:.1f}</td>" in line
    assert f"<td>{base['perplexity']:.2f}</td>" in line
    words = parsed(render_report(comparison)).text
    assert "Perplexity and bits per byte are not measured of remote, tfidf_linear:" in words
    assert "Calibration is not measured of tfidf_linear:" in words


def test_what_abstaining_would_be_worth_is_shown_for_arms_with_probabilities(comparison):
    part = section_of(render_report(comparison))
    table = part.partition("If the least sure answers were left to people")[2]
    names = re.findall(r'<span class="name">(\w+)</span>', table)
    assert sorted(names) == ["base", "remote"]
    right = comparison.arm("remote").score
    # All answers are equally sure, so that they are given together.
    assert table.count(f"<td>{right * 100:.1f}<small>from 70 %</small></td>") == 5


def test_the_report_is_the_same_when_it_is_drawn_from_json(comparison):
    again = replace(type(comparison).from_json(comparison.to_json()), evaluations=comparison.evaluations)
    assert section_of(render_report(again)) == section_of(render_report(comparison))


def test_a_comparison_with_nothing_else_to_show_has_no_such_section(comparison):
    bare = replace(comparison, arms=tuple(replace(arm, secondary={}) for arm in comparison.arms))
    assert "Other measures" not in render_report(bare)
