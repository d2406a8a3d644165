import copy
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from tailorbird.evaluation.training_charts import (
    MOST_POINTS,
    Curve,
    curves_plot,
    round_ticks,
    smoothed,
    thinned,
)
from tailorbird.evaluation.training_report import render_training_report

TRAINING = {
    "stage": "fine_tune",
    "total_steps": 40,
    "steps_per_epoch": 10,
    "num_sequences": 80,
    "num_trained": 4_884_480,
    "settings": {"learning_rate": 0.001, "batch_size": 8},
    "metrics": "training/0/metrics.jsonl",
    "estimate": {
        "steps": 40, "evaluations": 4, "tokens": 40_000, "shared_tokens": 10_000, "seconds": 60.0,
        "peak_bytes": 2_000_000_000,
    },
    "measured": {
        "steps": 20, "evaluations": 2, "tokens": 20_000, "shared_tokens": 5_000, "seconds": 32.0,
        "peak_bytes": 3_000_000_000,
    },
    "expected_s": 30.0,
    "result": {"steps": 20, "loss": 0.4321, "best_step": 10, "best_score": 0.8, "stopped_early": True},
}  # fmt: skip
STEPS = [
    {
        "step": n, "epoch": n / 10, "loss": 3 / n, "learning_rate": 1e-3 / n, "gradient_norm": 1.0,
        "tokens": 1000 * n, "shared_tokens": 250 * n, "seconds": 1.6 * n, **({"score": 0.8} if n % 10 == 0 else {}),
    }
    for n in range(1, 21)
]  # fmt: skip
GENERAL = {
    "text": "shipped with Tailorbird",
    "text_bytes": 6744,
    "questions": ["What is <b>?", "And?"],
    "before": {"perplexity": 20.0, "bits_per_byte": 1.0, "answers": ["a letter", "so on"]},
    "after": {"perplexity": 20.4, "bits_per_byte": 1.01, "answers": ["</td><script>", ""]},
    "seconds": 9.0,
}


def record(general=GENERAL, *trainings):
    return {"name": "m<i>", "trainings": list(trainings or [TRAINING]), "general": general}


def rendered(general=GENERAL, *trainings):
    found = record(general, *trainings)
    return render_training_report(found, [STEPS] * len(found["trainings"]))


def test_which_way_of_computing_ran_is_said():
    assert "The steps ran packed, fused, &lt;b&gt;." in rendered(
        GENERAL, {**TRAINING, "path": "packed, fused, <b>"}
    )
    for unknown in ({}, {"path": None}):
        assert "The steps ran" not in rendered(GENERAL, {**TRAINING, **unknown})


def test_a_search_for_the_learning_rate_is_shown_with_every_trial():
    trials = [
        {"learning_rate": 1e-3, "steps": 30, "score": 0.75},
        {"learning_rate": 1e-1, "steps": 30, "score": None},
    ]
    race = {"learning_rate": 1e-3, "steps": 60, "trials": trials}
    page = rendered(GENERAL, {**TRAINING, "learning_rate_race": race})
    assert "Search for the learning rate" in page
    assert '<th scope="row">0.001</th><td>30</td><td>0.750</td>' in page
    assert '<th scope="row">0.1</th><td>30</td><td>diverged</td>' in page
    assert "0.001 won. The search took 60 steps" in page
    assert "Search for the learning rate" not in rendered()


def text_of(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("<body>")[1]).split())


class Checker(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "polyline", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_loads_nothing_and_runs_nothing():
    checker = Checker()
    checker.feed(rendered())
    assert checker.open == []
    tags = [tag for tag, _ in checker.seen]
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert not [attrs for _, attrs in checker.seen if "src" in attrs]
    assert [attrs["href"] for _, attrs in checker.seen if "href" in attrs] == ["#content"]
    assert "default-src 'none'" in rendered()


def test_what_a_model_says_is_shown_and_not_obeyed():
    page = rendered()
    assert "<script" not in page
    assert "&lt;/td&gt;&lt;script&gt;" in page
    assert "m&lt;i&gt;" in page


def test_the_top_says_how_training_ended_and_what_was_kept():
    text = text_of(rendered())
    assert "fine_tune: 20 steps, stopped early of 40, loss 0.432 at the end." in text
    assert "The weights after step 10 scored best on dev and are kept." in text
    assert "It kept its general ability: perplexity 20.00 before, 20.40 after (+2.0%)." in text


def test_measured_stands_beside_what_was_estimated_for_the_steps_done():
    text = text_of(rendered())
    assert "time 30.0 s 32.0 s -6%" in text
    assert "peak memory 2.00 GB 3.00 GB -33% off" in text
    assert "tokens 20,000 20,000 +0%" in text
    assert "of them shared 5,000 5,000 +0%" in text
    assert "25% of them were shared within their batch and computed once." in text


def test_there_are_curves_of_loss_score_rate_and_speed():
    page = rendered()
    labels = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert labels == [
        "Loss by step",
        "Score on dev by step",
        "Learning rate by step",
        "Tokens a second by step",
    ]
    assert page.count('class="curve raw"') == 2


def test_preferences_have_curves_of_their_margin_and_of_how_many_are_preferred_rightly():
    steps = [{**step, "reward_margin": step["step"] / 10, "reward_accuracy": 0.75} for step in STEPS]
    page = render_training_report(record(), [steps])
    labels = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert labels[:3] == ["Loss by step", "Reward margin by step", "Preferred rightly by step"]
    assert "−log σ of the margin, mean of the preferences, before each step" in page
    assert "Nats a token" in rendered()


def test_without_dev_without_estimate_and_without_a_check_there_is_nothing_about_them():
    steps = [{key: value for key, value in step.items() if key != "score"} for step in STEPS]
    bare = copy.deepcopy(TRAINING) | {"estimate": None, "expected_s": None}
    bare["result"] |= {"best_step": None, "stopped_early": False}
    page = render_training_report(record(None, bare), [steps])
    assert "Score on dev" not in page
    assert "Estimate against measured" not in page
    assert "forgot" not in page
    assert "scored best" not in page


def test_what_was_forgotten_is_said_and_answers_stand_side_by_side():
    worse = copy.deepcopy(GENERAL)
    worse["after"]["perplexity"] = 30.0
    text = text_of(rendered(worse))
    assert (
        "It forgot some of what it could do in general: perplexity 20.00 before, 30.00 after (+50.0%)."
        in text
    )
    assert "And? so on nothing" in text
    assert "6,744 bytes of general text" in text
    assert "The check took 9.0 s." in text


def test_weights_made_from_nothing_have_no_before():
    text = text_of(rendered({**GENERAL, "before": None}))
    assert "it was made from nothing, so nothing was forgotten" in text
    assert "perplexity – 20.400 –" in text


def test_several_trainings_are_told_apart():
    other = TRAINING | {"stage": "from_scratch, text"}
    text = text_of(rendered(GENERAL, other, TRAINING))
    for title in ("Curves of from_scratch, text", "Curves of fine_tune", "Settings of fine_tune"):
        assert title in text
    assert "steps 40" in text


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (0.13, 2.31), (1e-6, 1e-3), (900, 12_000), (-2, 3), (5, 5), (0.3, 0.3 + 1e-14)],
)
def test_ticks_are_round_few_and_around_the_range(low, high):
    ticks = round_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 8


def test_smoothing_keeps_a_constant_and_damps_a_jump():
    means = [y for _, y in smoothed([(n, 1.0 if n else 11.0) for n in range(50)], 10)]
    assert means[0] == 11.0
    assert 1.0 < means[-1] < 1.2
    assert all(later < earlier for earlier, later in pairwise(means))


def test_a_long_curve_is_drawn_by_means():
    points = [(float(n), float(n % 2)) for n in range(10 * MOST_POINTS)]
    drawn = thinned(points)
    assert len(drawn) == MOST_POINTS
    assert {y for _, y in drawn} == {0.5}
    assert curves_plot("t", [Curve([])], str, 1) == ""


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (0.3, 0.3), (0.25, 0.25 + 1e-15), (1e-14, 2e-14), (-2.0, -2.0 + 1e-12)],
)
def test_ticks_differ_however_near_the_values_are(low, high):
    ticks = round_ticks(low, high)
    assert len(set(ticks)) == len(ticks) > 1
    assert ticks[0] <= low + 1e-9 * abs(low)
    assert ticks[-1] >= high - 1e-9 * abs(high)
