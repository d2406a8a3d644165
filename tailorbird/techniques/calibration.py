"""Calibration: what must be made of a model's probabilities of labels before they can be compared.

A language model prefers some labels whatever it is asked (Zhao et al. 2021, "Calibrate Before Use"). Every kind here
is a prior of the labels, and how far to trust the model's own probabilities beside it, so that label scoring takes
it into its exact search and the answer stays one of the labels:

    none          the model's probabilities as they are
    contextual    divided by those of a message without content (Zhao et al. 2021, arXiv 2102.09690)
    batch         divided by their mean over messages, whose labels need not be known (Zhou et al. 2023, 2309.17249)
    affine        to a power, times a factor a label, both fitted to labelled messages (vector scaling, Guo et al. 2017)
    neighbours    to a power, times a vote of the nearest examples to another (Xu et al. 2023, kNN prompting,
                  2303.13824); both powers fitted
    channel       to a power, times how well the message follows from each label to another (Min et al. 2022,
                  2108.04106); both powers fitted. Costs as many messages as there are labels: only where asked for
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tailorbird.errors import Unsupported
from tailorbird.records import Completion, Message, Prior, Request

Floats = npt.NDArray[np.float64]
Kind = Literal["none", "contextual", "batch", "affine", "neighbours", "channel"]
Calibrate = Literal["auto", "none", "contextual", "batch", "affine", "neighbours", "channel"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CONTENT_FREE = ("N/A", "...", "[MASK]")
"""Messages that say nothing; Zhao et al. took such."""
SMALLEST = 1e-9
"""Probabilities below it are taken for it: models round to 0 what they did not look at."""
LEAST_TRUST, MOST_TRUST = 0.02, 5.0
"""Between which exponents lie."""
DOUBT = 1.0
"""How far examples must speak for an exponent other than 1: as a normal prior on its logarithm, of this width."""
LABEL_DOUBT = 1.0
"""Likewise for the logarithm of a label's factor."""
FOLDS = 5
TEMPERATURES = (0.02, 0.05, 0.1)
"""Of the neighbours' vote: cosines, apart by so much, make e times a vote."""
DIGITS = 5
"""To which what was fitted is rounded: people read it."""
UNDECIDED = 0.05
"""The part of the neighbours' vote that is spread over all labels."""


@dataclass(frozen=True)
class Calibration:
    """A prior of labels: p^`trust` · e^`log_weights`, times the neighbours' vote to the power of `vote`.

    `log_weights` are in the order of `labels`; there are none where neighbours vote. `temperature` is a cosine.
    `channel` is the exponent of p(message | label).
    """

    kind: Kind = "none"
    labels: tuple[str, ...] = ()
    trust: float = 1.0
    log_weights: tuple[float, ...] = ()
    vote: float = 0.0
    temperature: float = TEMPERATURES[1]
    channel: float = 0.0

    def prior(
        self, choices: Sequence[str], log_votes: Callable[[float], Mapping[str, float]]
    ) -> Prior | None:
        """The prior of these choices; None where it would change nothing, or a choice is unknown.

        Args:
            choices: the labels asked for.
            log_votes: the neighbours' vote at a temperature, by label; asked for where it counts.
        """
        if self.kind == "none":
            return None
        if self.channel:
            return Prior((0.0,) * len(choices), self.trust)
        if self.vote:
            votes = log_votes(self.temperature)
            if not all(choice in votes for choice in choices):
                return None
            return Prior(tuple(self.vote * votes[choice] for choice in choices), self.trust)
        weights = dict(zip(self.labels, self.log_weights, strict=True))
        if not all(choice in weights for choice in choices):
            return None
        return Prior(tuple(weights[choice] for choice in choices), self.trust)

    def to_json(self) -> dict[str, Any]:
        """What `read_calibration` reads."""
        if self.kind == "none":
            return {"kind": "none"}
        if self.vote:
            return {
                "kind": self.kind,
                "trust": self.trust,
                "vote": self.vote,
                "temperature": self.temperature,
            }
        if self.channel:
            return {"kind": self.kind, "trust": self.trust, "channel": self.channel}
        factors = dict(zip(self.labels, self.log_weights, strict=True))
        return {"kind": self.kind, "trust": self.trust, "log_weights": factors}


NOT_CALIBRATED = Calibration()


def read_calibration(row: Mapping[str, Any]) -> Calibration:
    """Reads what `Calibration.to_json` wrote."""
    weights = row.get("log_weights", {})
    return Calibration(
        row["kind"],
        tuple(weights),
        float(row.get("trust", 1.0)),
        tuple(float(weight) for weight in weights.values()),
        float(row.get("vote", 0.0)),
        float(row.get("temperature", TEMPERATURES[1])),
        float(row.get("channel", 0.0)),
    )


@dataclass(frozen=True)
class Observed:
    """What a model said to messages whose right label is known, without calibration.

    `own_NL` are log-probabilities of the labels, `right_N` the right ones' places, `free_ML` log-probabilities
    after messages without content, `votes_TNL` the neighbours' log-votes at each of `TEMPERATURES`, and
    `channel_NL` what the noisy channel says; the last three are None where they were not asked for.
    """

    labels: tuple[str, ...]
    own_NL: Floats  # noqa: N815
    right_N: npt.NDArray[np.intp]  # noqa: N815
    free_ML: Floats | None = None  # noqa: N815
    votes_TNL: Floats | None = None  # noqa: N815
    channel_NL: Floats | None = None  # noqa: N815

    def only(self, rows: npt.NDArray[np.intp]) -> Observed:
        """Some of the messages."""
        votes = None if self.votes_TNL is None else self.votes_TNL[:, rows]
        channel = None if self.channel_NL is None else self.channel_NL[rows]
        return Observed(self.labels, self.own_NL[rows], self.right_N[rows], self.free_ML, votes, channel)

    def log_p(self, calibration: Calibration) -> Floats:
        """The calibrated log-probabilities, [N, L]."""
        scores_NL = calibration.trust * self.own_NL
        if calibration.vote:
            assert self.votes_TNL is not None
            scores_NL = (
                scores_NL + calibration.vote * self.votes_TNL[TEMPERATURES.index(calibration.temperature)]
            )
        elif calibration.channel:
            assert self.channel_NL is not None
            scores_NL = scores_NL + calibration.channel * self.channel_NL
        elif calibration.kind != "none":
            scores_NL = scores_NL + np.array(calibration.log_weights)
        return log_softmax(scores_NL)


def own_log_p(answers: Sequence[Completion], labels: Sequence[str], asked_by: str) -> Floats:
    """The answers' log-probabilities of the labels, [N, L].

    Raises:
        Unsupported: an answer tells none.
    """
    if any(answer.probabilities is None for answer in answers):
        raise Unsupported(
            f"{asked_by}: the model gives no probabilities of labels, which are needed here. Use local weights, or an "
            'endpoint that sends logprobs, with labels = "logprobs".'
        )
    rows = [[max((a.probabilities or {}).get(c, 0.0), SMALLEST) for c in labels] for a in answers]
    return np.log(np.array(rows, dtype=np.float64).reshape(len(rows), len(labels)))


def log_softmax(scores_NL: Floats) -> Floats:
    """log(e^s / Σ e^s) along the last axis."""
    shifted = scores_NL - scores_NL.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def fit_calibration(kind: Kind, seen: Observed) -> Calibration:
    """The calibration of this kind that fits what was observed; `none` where nothing was."""
    if not len(seen.right_N) or kind == "none":
        return NOT_CALIBRATED
    if kind == "contextual":
        assert seen.free_ML is not None
        return _divided(kind, seen.labels, seen.free_ML)
    if kind == "batch":
        return _divided(kind, seen.labels, seen.own_NL)
    if kind == "channel":
        assert seen.channel_NL is not None
        trust, channel, _ = product_of_two(seen.own_NL, seen.channel_NL, seen.right_N)
        return Calibration("channel", trust=round(trust, DIGITS), channel=round(channel, DIGITS))
    return _affine(seen) if kind == "affine" else _voted(seen)


def choose_calibration(seen: Observed, kinds: Sequence[Kind]) -> Calibration:
    """Of several kinds the one under which messages' right labels are likeliest, which it was not fitted to.

    Every message is judged by what was fitted to the others: `FOLDS` parts, taking turns.
    """
    if len(seen.right_N) < FOLDS or len(kinds) == 1:
        return fit_calibration(kinds[0], seen)

    def likelihood(kind: Kind) -> float:
        return float(right_log_p(crossed_log_p(kind, seen), seen.right_N).sum())

    return fit_calibration(max(kinds, key=likelihood), seen)


def crossed_log_p(kind: Kind, seen: Observed) -> Floats:
    """Every message's calibrated log-probabilities, [N, L], by what was fitted to the other parts."""
    fold_N = np.arange(len(seen.right_N)) % FOLDS
    found = np.empty_like(seen.own_NL)
    for fold in range(FOLDS):
        mine_N = fold_N == fold
        fitted = fit_calibration(kind, seen.only(np.flatnonzero(~mine_N)))
        found[mine_N] = seen.only(np.flatnonzero(mine_N)).log_p(fitted)
    return found


def right_log_p(log_p_NL: Floats, right_N: npt.NDArray[np.intp]) -> Floats:
    """The right labels' log-probabilities, [N]."""
    return log_p_NL[np.arange(len(right_N)), right_N]


def product_of_two(
    own_NL: Floats, other_NL: Floats, right_N: npt.NDArray[np.intp]
) -> tuple[float, float, float]:
    """Exponents of two opinions under which the right labels are likeliest in their product; and what is lost, in nats.

    Products of experts (Hinton 2002), the exponents fitted by maximum likelihood: own first, then the other's.
    """
    from scipy.optimize import minimize

    def cost(logarithms: Floats) -> float:
        trust, weight = np.exp(logarithms)
        lost = -right_log_p(log_softmax(trust * own_NL + weight * other_NL), right_N).sum()
        return float(lost + (logarithms**2).sum() / (2 * DOUBT**2))

    bounds = [(np.log(LEAST_TRUST), np.log(MOST_TRUST))] * 2
    best = minimize(cost, np.zeros(2), bounds=bounds, method="L-BFGS-B")
    trust, weight = np.exp(best.x).tolist()
    return trust, weight, float(best.fun)


def log_votes(
    labels: Sequence[str], near: Sequence[tuple[str, float]], temperature: float
) -> dict[str, float]:
    """How neighbours vote, as log-probabilities: each for its own label, with weight e^(cosine / temperature).

    Args:
        labels: all there are.
        near: each neighbour's label and its cosine with the message.
        temperature: see above.

    >>> votes = log_votes(["a", "b"], [("a", 0.9), ("b", 0.8)], 0.1)
    >>> [round(float(np.exp(votes[label])), 2) for label in "ab"]
    [0.72, 0.28]
    """
    even = 1 / max(1, len(labels))
    weights = dict.fromkeys(labels, 0.0)
    most = max((cosine for _, cosine in near), default=0.0)
    for label, cosine in near:
        if label in weights:
            weights[label] += float(np.exp((cosine - most) / temperature))
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(labels, float(np.log(even)))
    return {
        label: float(np.log((1 - UNDECIDED) * weight / total + UNDECIDED * even))
        for label, weight in weights.items()
    }


def _divided(kind: Kind, labels: tuple[str, ...], log_p_NL: Floats) -> Calibration:
    mean_L = np.log(np.exp(log_softmax(log_p_NL)).mean(axis=0))
    return Calibration(kind, labels, 1.0, _rounded(-mean_L))


def _rounded(values_L: Floats) -> tuple[float, ...]:
    return tuple(round(value, DIGITS) for value in values_L.tolist())


def _affine(seen: Observed) -> Calibration:
    from scipy.optimize import minimize

    count, width = seen.own_NL.shape
    right_NL = np.zeros((count, width))
    right_NL[np.arange(count), seen.right_N] = 1

    def cost(values: Floats) -> tuple[float, Floats]:
        trust, weights_L = np.exp(values[0]), values[1:]
        log_p_NL = log_softmax(trust * seen.own_NL + weights_L)
        over_NL = np.exp(log_p_NL) - right_NL
        lost = -(log_p_NL * right_NL).sum() + values[0] ** 2 / (2 * DOUBT**2)
        slope_trust = trust * (over_NL * seen.own_NL).sum() + values[0] / DOUBT**2
        slope_L = over_NL.sum(axis=0) + weights_L / LABEL_DOUBT**2
        return float(lost + (weights_L**2).sum() / (2 * LABEL_DOUBT**2)), np.concatenate(
            [[slope_trust], slope_L]
        )

    bounds = [(np.log(LEAST_TRUST), np.log(MOST_TRUST)), *[(None, None)] * width]
    best = minimize(cost, np.zeros(1 + width), jac=True, bounds=bounds, method="L-BFGS-B")
    return Calibration("affine", seen.labels, round(float(np.exp(best.x[0])), DIGITS), _rounded(best.x[1:]))


def _voted(seen: Observed) -> Calibration:
    assert seen.votes_TNL is not None
    fits = [
        (product_of_two(seen.own_NL, votes_NL, seen.right_N), temperature)
        for votes_NL, temperature in zip(seen.votes_TNL, TEMPERATURES, strict=True)
    ]
    (trust, vote, _), temperature = min(fits, key=lambda fit: fit[0][2])
    return Calibration(
        "neighbours", trust=round(trust, DIGITS), vote=round(vote, DIGITS), temperature=temperature
    )


def without_content(request: Request) -> list[Request]:
    """The request with messages that say nothing in place of its own."""
    last = max(i for i, m in enumerate(request.messages) if m.role == "user")
    return [
        replace(
            request, messages=(*request.messages[:last], Message("user", text), *request.messages[last + 1 :])
        )
        for text in CONTENT_FREE
    ]
