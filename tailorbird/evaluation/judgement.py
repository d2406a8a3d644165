"""What a judge said of two arms' answers, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Match:
    """The verdict's arm against another one, on the same test examples.

    `wins`, `ties` and `losses` are the verdict's arm's and add up to the examples; `same` of the ties were equal
    answers, of which the judge was not asked. `score` is the share of wins and half of the ties, with a 95 % interval.
    """

    opponent: str
    wins: int
    ties: int
    losses: int
    same: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """A judge's opinion of the verdict's arm and others, and its agreement with itself and with the deciding metric.

    Each of `asked` pairs was asked twice, the second time in the other order. `consistent` in [0, 1] is the share of
    them in which both times said the same, `unreadable` how many of the 2 · asked answers named none of the choices.
    `told_apart` of the pairs the deciding metric tells apart; `agreement` in [0, 1] is the share of these in which the
    judge says the same as the metric, `kappa` in [-1, 1] what remains of that when chance is taken off. What could not
    be measured is None. `failed` says why there is no opinion.
    """

    model: str
    arm: str | None
    metric: str
    matches: tuple[Match, ...] = ()
    asked: int = 0
    unreadable: int = 0
    consistent: float | None = None
    told_apart: int = 0
    agreement: float | None = None
    kappa: float | None = None
    is_base: bool = False
    failed: str = ""

    def sentences(self) -> list[str]:
        """The opinion for people, and how much to make of it."""
        if self.failed:
            return [f"The judge {self.model} gave no opinion: {self.failed}"]
        said = [
            f"The judge {self.model} prefers {self.arm} to {m.opponent} {m.wins} times, {m.opponent} {m.losses} times, "
            f"neither {m.ties} times: {m.score * 100:.0f} % ({m.low * 100:.0f} to {m.high * 100:.0f})."
            for m in self.matches
        ]
        return [*said, *self.reservations()]

    def reservations(self) -> list[str]:
        """What speaks for and against believing the judge."""
        notes = ["Its opinion does not change the verdict."]
        if self.consistent is not None:
            notes.append(
                f"Asked in both orders it said the same of {self.consistent * 100:.0f} % of {self.asked} pairs; the "
                "others count as ties."
            )
        if self.agreement is not None:
            kappa = "" if self.kappa is None else f" (Cohen's κ {self.kappa:.2f})".replace("-", "−")
            notes.append(
                f"Of {self.told_apart} pairs that {self.metric} tells apart it says the same of "
                f"{self.agreement * 100:.0f} %{kappa}."
            )
        if self.unreadable:
            notes.append(f"{self.unreadable} of its {2 * self.asked} answers could not be read.")
        if self.is_base:
            notes.append(
                "It is the model that the arms start from, and models tend to like their own answers."
            )
        return notes

    def to_json(self) -> dict[str, Any]:
        """As plain values; `from_json` gives the same back."""
        return {**asdict(self), "matches": [asdict(match) for match in self.matches]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Judgement:
        """Reads what `to_json` gave."""
        values: dict[str, Any] = {**row, "matches": tuple(Match(**match) for match in row["matches"])}
        return cls(**values)
