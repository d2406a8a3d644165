"""How a model was trained, as one HTML page: curves, cost against its estimate, and what was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tailorbird.evaluation.comparison import seconds
from tailorbird.evaluation.markup import escape, figure, page, row, section, table, tag
from tailorbird.evaluation.training_charts import Curve, Point, curves_plot, smoothed

LOSSES = {False: "Nats a token of the completions", True: "−log σ of the margin, mean of the preferences"}
"""What the loss is, where completions are learnt and where preferences are."""
REWARDS = (("Reward margin", "reward_margin"), ("Preferred rightly", "reward_accuracy"))
NOTICEABLE = 0.05
"""A perplexity that rose by more than this part is told as something forgotten."""
WELL_ESTIMATED = 0.25


def render_training_report(record: Mapping[str, Any], curves: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """The page as text.

    Args:
        record: what `training.json` holds: name, trainings, general.
        curves: the steps of each training, as in its `metrics.jsonl`.
    """
    trainings = record["trainings"]
    several = len(trainings) > 1
    parts = [_top(record)]
    for training, steps in zip(trainings, curves, strict=True):
        parts.append(_curves(training, steps, named=several))
        parts.append(_cost(training, named=several))
        parts.append(_race(training, named=several))
    parts.append(_forgotten(record["general"]))
    parts += [_settings(training, named=several) for training in trainings]
    return page(f"How {record['name']} was trained", "".join(parts))


def _top(record: Mapping[str, Any]) -> str:
    measured = [training["measured"] for training in record["trainings"]]
    facts = [
        ("steps", f"{sum(m['steps'] for m in measured):,}"),
        ("tokens", f"{sum(m['tokens'] for m in measured):,}"),
        ("time", seconds(sum(m["seconds"] for m in measured))),
        ("peak memory", _size(max(m["peak_bytes"] for m in measured))),
    ]
    listed = "".join(f"<li>{escape(name)} <b>{escape(value)}</b></li>" for name, value in facts)
    sentences = " ".join(_outcome(training) for training in record["trainings"])
    rest = _forgotten_sentence(record["general"])
    return (
        f'<header><h1>How {escape(record["name"])} was trained</h1><div class="verdict">'
        f"<p>{escape(sentences)}</p>" + (f'<p class="rest">{escape(rest)}</p>' if rest else "") + "</div>"
        f'<ul class="facts">{listed}</ul></header>'
    )


def _outcome(training: Mapping[str, Any]) -> str:
    result = training["result"]
    early = f", stopped early of {training['total_steps']:,}" if result["stopped_early"] else ""
    best = ""
    if result["best_step"] is not None:
        best = f" The weights after step {result['best_step']:,} scored best on dev and are kept."
    return (
        f"{training['stage']}: {result['steps']:,} steps{early}, loss {result['loss']:.3f} at the end.{best}"
    )


# -- curves ---------------------------------------------------------------------------------------


def _curves(training: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], *, named: bool) -> str:
    last = max((step["step"] for step in steps), default=0)

    def points(
        value: Callable[[Mapping[str, Any]], float], of: Sequence[Mapping[str, Any]] = steps
    ) -> list[Point]:
        return [(step["step"], value(step)) for step in of]

    loss = points(lambda step: step["loss"])
    scored = [step for step in steps if "score" in step]
    rates = _rates(steps)
    preferences = any("reward_margin" in step for step in steps)
    charts = [
        figure(
            "Loss",
            curves_plot(
                "Loss by step", [Curve(loss, "raw"), Curve(smoothed(loss, 10))], lambda y: f"{y:g}", last
            ),
            f"{LOSSES[preferences]}, before each step; the strong line is the mean of about ten.",
        ),
        *(_rewards(name, key, steps, last) for name, key in REWARDS if preferences),
        figure(
            "Score on dev",
            curves_plot(
                "Score on dev by step",
                [Curve(points(lambda step: step["score"], scored), "points")],
                lambda y: f"{y:g}",
                last,
            ),
            "The task's metric, plus up to a hundredth for the right labels' mean probability.",
        )
        if scored
        else "",
        figure(
            "Learning rate",
            curves_plot(
                "Learning rate by step",
                [Curve(points(lambda step: step["learning_rate"]))],
                lambda y: f"{y:.2g}",
                last,
            ),
            "Rises while warming up, then falls.",
        ),
        figure(
            "Tokens a second",
            curves_plot(
                "Tokens a second by step",
                [Curve(rates, "raw"), Curve(smoothed(rates, 10))],
                lambda y: f"{y:g}",
                last,
            ),
            f"Tokens of the examples over wall-clock time. {_shared(training)}",
        )
        if rates
        else "",
    ]
    title = f"Curves of {training['stage']}" if named else "Curves"
    return section(title, f'<div class="charts">{"".join(charts)}</div>')


def _rewards(name: str, key: str, steps: Sequence[Mapping[str, Any]], last: int) -> str:
    """How far the preferred answers have gained on the rejected ones since the beginning."""
    values = [(step["step"], step[key]) for step in steps if key in step]
    text = {
        "reward_margin": "β times what the preferred answers gained in log-probability on the rejected ones.",
        "reward_accuracy": "The share of a step's preferences with a margin above 0.",
    }[key]
    plot = curves_plot(
        f"{name} by step", [Curve(values, "raw"), Curve(smoothed(values, 10))], lambda y: f"{y:g}", last
    )
    return figure(name, plot, text)


def _rates(steps: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Tokens a second of every step that did not wait for dev."""
    found: list[Point] = []
    for before, step in pairwise(steps):
        took = step["seconds"] - before["seconds"]
        if took > 0 and "score" not in step:
            found.append((step["step"], (step["tokens"] - before["tokens"]) / took))
    return found


def _shared(training: Mapping[str, Any]) -> str:
    measured = training["measured"]
    share = measured["shared_tokens"] / max(1, measured["tokens"])
    if not share:
        return "None were shared within a batch."
    return f"{share:.0%} of them were shared within their batch and computed once."


# -- cost -----------------------------------------------------------------------------------------


def _cost(training: Mapping[str, Any], *, named: bool) -> str:
    estimate, measured = training["estimate"], training["measured"]
    title = f"Estimate against measured, {training['stage']}" if named else "Estimate against measured"
    if estimate is None:
        return ""
    rows = [_compared("time", training["expected_s"], measured["seconds"], seconds)]
    rows.append(_compared("peak memory", estimate["peak_bytes"], measured["peak_bytes"], _size))
    expected_tokens = estimate["tokens"] * measured["steps"] / estimate["steps"]
    rows.append(_compared("tokens", expected_tokens, measured["tokens"], _count))
    shared = estimate["shared_tokens"] * measured["steps"] / estimate["steps"]
    rows.append(_compared("of them shared", shared, measured["shared_tokens"], _count))
    note = (
        f"<p><small>Estimated before the first step, for the {measured['steps']:,} steps and "
        f"{measured['evaluations']:,} evaluations on dev that were done; all {estimate['steps']:,} planned steps "
        f"would have taken {escape(seconds(estimate['seconds']))}. Memory is that of the whole process."
        f"{_path(training)}</small></p>"
    )
    return section(title, table(["", "estimated", "measured", "difference"], rows), note)


def _path(training: Mapping[str, Any]) -> str:
    """Which of the ways of computing ran; a slower one is one reason for surprising times."""
    path = training.get("path")
    return f" The steps ran {escape(path)}." if path else ""


def _compared(name: str, expected: float, measured: float, text: Callable[[float], str]) -> str:
    off = expected / measured - 1 if measured else 0.0
    mark = "" if abs(off) <= WELL_ESTIMATED else " " + tag("off", "warn")
    return row(
        [escape(name), escape(text(expected)), f"<b>{escape(text(measured))}</b>", f"{off:+.0%}{mark}"]
    )


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.2f} GB"


def _count(number: float) -> str:
    return f"{number:,.0f}"


# -- how its learning rate was found --------------------------------------------------------------


def _race(training: Mapping[str, Any], *, named: bool) -> str:
    race = training.get("learning_rate_race")
    if race is None:
        return ""
    rows = [
        row(
            [
                f"{trial['learning_rate']:g}",
                f"{trial['steps']:,}",
                "diverged" if trial["score"] is None else f"{trial['score']:.3f}",
            ]
        )
        for trial in race["trials"]
    ]
    note = (
        f"<p><small>The better half went on to the next round; {race['learning_rate']:g} won. The search took "
        f"{race['steps']:,} steps, besides those above.</small></p>"
    )
    title = f"Search for the learning rate, {training['stage']}" if named else "Search for the learning rate"
    return section(title, table(["learning rate", "steps", "score on dev"], rows), note)


# -- what was forgotten ---------------------------------------------------------------------------


def _forgotten_sentence(general: Mapping[str, Any] | None) -> str:
    if general is None:
        return ""
    after = general["after"]["perplexity"]
    if general["before"] is None:
        return f"On general text its perplexity is {after:,.1f}; it was made from nothing, so nothing was forgotten."
    before = general["before"]["perplexity"]
    change = after / before - 1
    numbers = f"perplexity {before:,.2f} before, {after:,.2f} after ({change:+.1%})"
    if change > NOTICEABLE:
        return f"It forgot some of what it could do in general: {numbers}."
    return f"It kept its general ability: {numbers}."


def _forgotten(general: Mapping[str, Any] | None) -> str:
    if general is None:
        return ""
    before, after = general["before"], general["after"]
    rows = [
        _change("perplexity", "perplexity", general),
        _change("bits per byte", "bits_per_byte", general),
    ]
    note = (
        f"<p><small>How well {general['text_bytes']:,} bytes of general text are predicted "
        f"({escape(general['text'])}), in fixed windows, without wrappers or instruction; lower is better. "
        f"The check took {escape(seconds(general['seconds']))}.</small></p>"
    )
    answers = [
        row(
            [
                _cell(question),
                *([] if before is None else [_cell(before["answers"][number])]),
                _cell(after["answers"][number]),
            ]
        )
        for number, question in enumerate(general["questions"])
    ]
    columns = ["question", *([] if before is None else ["before"]), "after"]
    return section(
        "What was forgotten",
        table(["", "before", "after", "change"], rows),
        note,
        "<h3>General questions</h3>",
        table(columns, answers, style="texts"),
    )


def _change(name: str, key: str, general: Mapping[str, Any]) -> str:
    after = general["after"][key]
    if general["before"] is None:
        return row([escape(name), "–", f"<b>{after:,.3f}</b>", "–"])
    before = general["before"][key]
    return row([escape(name), f"{before:,.3f}", f"<b>{after:,.3f}</b>", f"{after / before - 1:+.1%}"])


def _cell(text: str) -> str:
    return escape(text) if text else "<i>nothing</i>"


# -- settings -------------------------------------------------------------------------------------


def _settings(training: Mapping[str, Any], *, named: bool) -> str:
    facts = {
        "sequences": f"{training['num_sequences']:,}",
        "trained numbers": f"{training['num_trained']:,}",
        **{key.replace("_", " "): value for key, value in training["settings"].items()},
        "every step": training["metrics"],
    }
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return section(f"Settings of {training['stage']}" if named else "Settings", f"<dl>{listed}</dl>")
