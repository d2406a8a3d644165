"""The result of a comparison as a record, and as the `comparison.json` that scripts read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tailorbird.data.task import TaskKind
from tailorbird.evaluation.evaluate import Evaluation, Mismatch
from tailorbird.evaluation.judgement import Judgement
from tailorbird.evaluation.statistics import minimum_detectable_difference
from tailorbird.evaluation.verdict import Verdict


@dataclass(frozen=True)
class ArmResult:
    """One arm's line of the leaderboard.

    Scores are means of the primary metric in [0, 1] with 95 % intervals. `difference` is this arm
    minus the candidate (the best on dev) on test, paired; None for the candidate itself. Everything
    that was not measured is None: a stopped arm was never started, a failed one says why.
    """

    name: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    p_adjusted: float | None = None
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    cost_per_1k: float | None = None
    train_s: float | None = None
    tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of all test answers: input, cached (part of the input), output."""
    stopped: bool = False
    """Not measured to the end, and so not on test; `stopped_why` says why, `dev_score` is of `num_dev` examples."""
    stopped_why: str = ""
    failed: str = ""
    floor: bool = False
    dev_score: float | None = None
    num_dev: int = 0
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    secondary: Mapping[str, float] = field(default_factory=dict[str, float])
    invalid_rate: float | None = None
    compute_per_answer: float | None = None
    """(Input − cached + output tokens) × parameters; 0 for floors, None where the size is not told."""
    mismatches: tuple[Mismatch, ...] = ()
    """Answers that differed when asked alone instead of in a batch."""
    base: str = ""
    """The MODEL that it starts from; empty for what brings its own weights."""

    @property
    def ran(self) -> bool:
        """True where the arm was measured."""
        return self.score is not None


@dataclass(frozen=True)
class Comparison:
    """All arms on one frozen test set, and the verdict."""

    task: TaskKind
    metric: str
    num_test: int
    arms: tuple[ArmResult, ...]
    verdict: Verdict
    reproduce: Mapping[str, Any] = field(default_factory=dict[str, Any])
    num_dev: int = 0
    minimum_detectable_difference: float = 1.0
    """With this test size, at 80 % power, if the arms differ on a fifth of the examples."""
    margin: float = 0.03
    price_per_hour: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Counts, labels, fingerprints and test examples repeated in training."""
    judge: Judgement | None = None
    """What a model thinks of the answers, where one was asked; the verdict does not depend on it."""
    extras: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What more would buy, as JSON; it was measured after the verdict and has no part in it: `tailorbird.extras`."""
    warnings: Sequence[Mapping[str, Any]] = ()
    """What to know before believing it, gravest first; see `warnings`."""
    openings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """How often its test set has been looked at; see `openings`."""
    against: Mapping[str, Any] | None = None
    """The earlier run that it is held against; see `against`."""
    evaluations: Mapping[str, Evaluation] = field(
        default_factory=dict[str, Evaluation], repr=False, compare=False
    )
    """The test answers of every arm that ran; kept beside the JSON, not in it."""

    def arm(self, name: str) -> ArmResult:
        """The line of one arm."""
        return next(arm for arm in self.arms if arm.name == name)

    def to_json(self) -> dict[str, Any]:
        """What `comparison.json` holds; `from_json` gives it back without the answers."""
        verdict = self.verdict
        return {
            "task": self.task,
            "metric": self.metric,
            "num_test": self.num_test,
            "num_dev": self.num_dev,
            "arms": [_arm_to_json(arm) for arm in self.arms],
            "verdict": {
                "kind": verdict.kind,
                "arm": verdict.arm,
                "sentence": verdict.sentence,
                "more_examples_needed": verdict.more_examples_needed,
                "candidate": verdict.candidate,
                "headline": verdict.headline,
            },
            "minimum_detectable_difference": self.minimum_detectable_difference,
            "margin": self.margin,
            "price_per_hour": self.price_per_hour,
            "data": dict(self.data),
            "extras": dict(self.extras),
            "warnings": [dict(warning) for warning in self.warnings],
            "openings": dict(self.openings),
            "against": self.against and dict(self.against),
            "reproduce": dict(self.reproduce),
            "judge": self.judge and self.judge.to_json(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Comparison:
        """Reads what `to_json` gave; the verdict's differences stand with the arms."""
        known = {f.name for f in fields(cls)}
        rest = {k: v for k, v in row.items() if k in known and k not in ("arms", "verdict", "judge")}
        return cls(
            arms=tuple(_arm_from_json(arm) for arm in row["arms"]),
            verdict=Verdict(**row["verdict"]),
            judge=Judgement.from_json(found) if (found := row.get("judge")) else None,
            **rest,
        )


def _arm_to_json(arm: ArmResult) -> dict[str, Any]:
    return {**asdict(arm), "tokens": dict(arm.tokens), "secondary": dict(arm.secondary)}


def _arm_from_json(row: Mapping[str, Any]) -> ArmResult:
    values: dict[str, Any] = {**row, "mismatches": tuple(Mismatch(**m) for m in row["mismatches"])}
    return ArmResult(**values)


def minimum_detectable(num_test: int) -> float:
    """The smallest difference that so many test examples mostly reveal, in [0, 1]."""
    return minimum_detectable_difference(num_test)


def terminal_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Plain columns and rows of the leaderboard, for a shell to draw."""
    columns = [
        "arm",
        comparison.metric,
        "95 % interval",
        "vs candidate",
        "p (Holm)",
        "p50",
        "p95",
        "cost/1k",
        "train",
    ]
    return columns, [_terminal_row(arm, comparison) for arm in comparison.arms]


def _terminal_row(arm: ArmResult, comparison: Comparison) -> list[str]:
    if arm.stopped or arm.failed:
        why = f"stopped: {arm.stopped_why}" if arm.stopped else f"failed: {arm.failed}"
        return [arm.name, why, *[""] * 7]
    chosen = arm.name == comparison.verdict.candidate
    return [
        f"{arm.name} ←" if arm.name == comparison.verdict.arm else arm.name,
        percent(arm.score),
        f"{percent(arm.low)} to {percent(arm.high)}",
        "candidate" if chosen else points(arm.difference),
        p_value(arm.p_adjusted),
        seconds(arm.latency_p50_s),
        seconds(arm.latency_p95_s),
        money(arm.cost_per_1k),
        seconds(arm.train_s),
    ]


def percent(share: float | None) -> str:
    """A share of 1 in percent, one digit after the point; a dash for what was not measured."""
    return "–" if share is None else f"{share * 100:.1f}"


def points(share: float | None) -> str:
    """A signed difference in percentage points."""
    return "–" if share is None else f"{share * 100:+.1f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """A p-value with three digits, or that it is smaller."""
    if p is None:
        return "–"
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    if 0 < value < 1e-4:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def money(usd: float | None) -> str:
    """An amount in dollars, with the digits that tell."""
    if usd is None:
        return "–"
    if usd == 0:
        return "$0"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.2g}" if usd >= 0.0001 else "<$0.0001"
