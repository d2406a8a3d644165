"""A metaprompt fitted to the model that it wraps, and measured: calibration, shortlist, when to abstain.

All on dev examples. What a calibration is worth is told by examples that it was not fitted to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tailorbird.data.task import Data
from tailorbird.errors import DataError
from tailorbird.evaluation.metrics import default_metric
from tailorbird.evaluation.statistics import score_interval
from tailorbird.models.model import Model
from tailorbird.records import ABSTAINED, Example, Prior, Request
from tailorbird.techniques.asking import answer_all
from tailorbird.techniques.calibration import (
    NOT_CALIBRATED,
    TEMPERATURES,
    Calibrate,
    Calibration,
    Floats,
    Kind,
    Observed,
    choose_calibration,
    crossed_log_p,
    own_log_p,
    right_log_p,
    without_content,
)

log = logging.getLogger(__name__)

MOST_DEV = 64
"""Dev examples that are asked to fit and to measure."""
SHORTLISTS = (5, 10, 20, 40, 80, 160)
"""Sizes that are tried."""
KEPT = 0.99
"""How often a shortlist must hold the right label."""
IGNORED = 1e-6
"""An exponent by which a model's own probabilities are all alike."""
SUREST = 0.999999
"""The highest threshold."""

VotesFor = Callable[[Request, Sequence[str], float], Mapping[str, float]]
"""The neighbours' log-votes on a request, at a temperature, by label."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted to a model's answers, and how well it then does on dev."""

    calibration: Calibration = NOT_CALIBRATED
    abstain_below: float = 0.0
    measured: Mapping[str, Any] = field(default_factory=dict)


NOTHING_FITTED = Fitted()


def fit_labels(
    asking: Model,
    data: Data,
    votes_for: VotesFor | None,
    *,
    calibrate: Calibrate,
    precision: float | None,
    own_examples: bool,
) -> Fitted:
    """Calibration, threshold and score of a classifying model; nothing where the answers are free.

    Args:
        asking: the model as it asks, not calibrated.
        data: of the task; its dev examples are what is asked.
        votes_for: the neighbours' log-votes, where there are neighbours.
        calibrate: the kind of calibration.
        precision: part of the answers that are to be right; None abstains never.
        own_examples: whether every request is shown examples of its own, after which a message without content says
            little of the next request's.

    Raises:
        DataError: likewise, and there are no labels, or no dev examples.
        Unsupported: a calibration was asked for by name, or to abstain, and the model tells no probabilities.
    """
    labels, dev = data.task.labels, data.dev
    asked_for = calibrate not in ("auto", "none") or precision is not None
    if asked_for and (data.task.kind != "classify" or not dev):
        what = "there are no dev examples to fit them to" if not dev else "the task is to answer freely"
        raise DataError(
            f"few_shot: calibrate is {calibrate!r} and precision {precision}, but {what}. Leave both out, or give "
            "labelled examples of few labels."
        )
    if data.task.kind != "classify" or not dev or (calibrate == "none" and precision is None):
        return NOTHING_FITTED
    requests = [data.task.ask(example) for example in dev]
    answers = asking.answer(requests[:1])
    if answers[0].probabilities is None and calibrate in ("auto", "none") and precision is None:
        return NOTHING_FITTED  # an endpoint that only names a label is not asked another sixty times
    log.info("few_shot: answers %d dev examples, to calibrate and to be measured.", len(requests))
    answers += answer_all(asking, requests[1:], "few_shot")
    rows = [i for i, example in enumerate(dev) if example.completion in labels]
    if not rows:
        return NOTHING_FITTED
    asked = [requests[i] for i in rows]
    free = None
    if calibrate == "contextual" or (calibrate == "auto" and not own_examples):
        free = own_log_p(asking.answer(without_content(asked[0])), labels, "few_shot")
    seen = Observed(
        tuple(labels),
        own_log_p([answers[i] for i in rows], labels, "few_shot"),
        np.array([labels.index(dev[i].completion) for i in rows], dtype=np.intp),
        free,
        None
        if votes_for is None or calibrate not in ("auto", "neighbours")
        else _votes(asked, labels, votes_for),
        _channel(asking, asked, labels) if calibrate == "channel" else None,
    )
    calibration = choose_calibration(seen, _kinds(calibrate, seen))
    crossed_NL = crossed_log_p(calibration.kind, seen)
    measured = _measured(seen, crossed_NL, default_metric(data.task)[0])
    log.info(
        "few_shot: %s %.1f %% on dev (%.1f to %.1f), calibrated by %s.",
        measured["metric"],
        *(100 * measured[key] for key in ("score", "low", "high")),
        calibration.kind,
    )
    if precision is None:
        return Fitted(calibration, 0.0, measured)
    below, answered = _threshold(precision, crossed_NL, seen)
    return Fitted(calibration, below, {**measured, **answered})


def measure(asking: Model, data: Data, examples: Sequence[Example]) -> dict[str, Any]:
    """The metric on examples, with its interval, of a model as it asks; whatever the task."""
    answers = answer_all(asking, [data.task.ask(example) for example in examples], "few_shot")
    name, metric = default_metric(data.task)
    return summary(name, [metric(e, a) for e, a in zip(examples, answers, strict=True)])


def summary(metric: str, scores: Sequence[float]) -> dict[str, Any]:
    """A score with its 95 % interval, for the artefact."""
    found = score_interval(scores)
    return {
        "metric": metric,
        "score": round(found.mean, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "examples": len(scores),
    }


def fit_shortlist(
    candidates: Callable[[Request, int], Sequence[str]], data: Data, size: int | None
) -> int | None:
    """How many labels a shortlist has: `size`, or the fewest that hold the right one in 99 % of dev, or None: all.

    What it holds is said in the log.
    """
    sizes = (size,) if size is not None else tuple(n for n in SHORTLISTS if n < len(data.task.labels))
    kept = 0.0
    for count in sizes:
        found = [example.completion in candidates(data.task.ask(example), count) for example in data.dev]
        kept = sum(found) / len(found) if found else 1.0
        if size is not None or kept >= KEPT:
            say = log.info if kept >= KEPT else log.warning
            say(
                "few_shot: a shortlist of %d labels holds the right one in %.1f %% of dev.", count, 100 * kept
            )
            return count
    log.warning(
        "few_shot: no shortlist of up to %d labels holds the right one in 99 %% of dev (%.1f %%); all are scored.",
        max(sizes, default=0),
        100 * kept,
    )
    return None


def _kinds(calibrate: Calibrate, seen: Observed) -> list[Kind]:
    if calibrate != "auto":
        return [calibrate]
    kinds: list[Kind] = ["none", "batch", "affine"]
    if seen.free_ML is not None:
        kinds.append("contextual")
    if seen.votes_TNL is not None:
        kinds.append("neighbours")
    return kinds


def _votes(requests: Sequence[Request], labels: Sequence[str], votes_for: VotesFor) -> Floats:
    """Log-votes at every temperature, [T, N, L]."""
    found = [
        [votes_for(request, labels, temperature) for request in requests] for temperature in TEMPERATURES
    ]
    return np.array([[[votes[label] for label in labels] for votes in row] for row in found])


def _channel(asking: Model, requests: Sequence[Request], labels: Sequence[str]) -> Floats:
    """What the noisy channel alone says, as log-probabilities of the labels, [N, L]."""
    ignored = Prior((0.0,) * len(labels), IGNORED)
    turned = [replace(request, channel=1.0, prior=ignored) for request in requests]
    return own_log_p(answer_all(asking, turned, "few_shot"), labels, "few_shot")


def _measured(seen: Observed, crossed_NL: Floats, metric: str) -> dict[str, Any]:
    right_N = crossed_NL.argmax(axis=1) == seen.right_N
    lost = -float(right_log_p(crossed_NL, seen.right_N).mean())
    return {
        **summary(metric, right_N.astype(float).tolist()),
        "log_loss": round(lost, 4),
        "judged": "each example by what was fitted to the others",
    }


def _threshold(precision: float, crossed_NL: Floats, seen: Observed) -> tuple[float, dict[str, float]]:
    """The least probability at which so many of the answers are right, and what is answered there."""
    sure_N = np.exp(crossed_NL.max(axis=1))
    right_N = crossed_NL.argmax(axis=1) == seen.right_N
    order = np.argsort(-sure_N, kind="stable")
    precise_N = right_N[order].cumsum() / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precise_N >= precision)
    if not len(enough):
        log.warning(
            "few_shot: no threshold makes %.0f %% of the answers right on dev, so the model will say %s to nearly "
            "everything. Lower `precision`, or leave it out.",
            100 * precision,
            ABSTAINED,
        )
        return SUREST, {"answered": 0.0, "right_of_answered": 0.0}
    count = int(enough[-1]) + 1
    below = 0.0 if count == len(order) else math.floor(1e6 * float(sure_N[order[count - 1]])) / 1e6
    answered = {
        "answered": round(count / len(order), 4),
        "right_of_answered": round(float(precise_N[count - 1]), 4),
    }
    return min(below, SUREST), answered
