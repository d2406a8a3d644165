"""How often a test set was looked at: what is kept of it, and what is said.

A test set confirms once. Every further arm that is measured on it, and every further comparison, makes the best
score of all of them more flattering than it is. What counts as an opening is a comparison that measured something
on the test set that had not been measured on it: another arm, other settings, another base, seed or training set.
The same comparison repeated, or taken up where it was killed, opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tailorbird.data.problems import plural
from tailorbird.records import content_hash


@dataclass(frozen=True, slots=True)
class Seen:
    """An arm was measured on a test set.

    `test` is the hash of the test set's example ids, `key` of what the arm was made of, and `opening` of the
    comparison with all that it was to measure: the same for the same comparison taken up again. `date` is ISO 8601.
    """

    test: str
    key: str
    opening: str
    arm: str
    run: str
    base: str
    date: str

    def to_json(self) -> dict[str, str]:
        """As JSON-like values."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Seen:
        """Reads what `to_json` gave.

        Raises:
            ValueError: the row is something else.
        """
        names = cls.__slots__
        if not all(isinstance(row.get(name), str) for name in names):
            raise ValueError(f"Got keys {sorted(row)}; expected texts for {', '.join(names)}.")
        return cls(**{name: row[name] for name in names})


@dataclass(frozen=True, slots=True)
class Opening:
    """One comparison that measured something new on a test set, and which arms those were."""

    date: str
    run: str
    base: str
    arms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Openings:
    """What is known of a test set's past.

    `elsewhere` counts its examples that also stood in other test sets that were opened; `now_learnt` counts
    examples of such test sets that are now in train or dev.
    """

    each: tuple[Opening, ...] = ()
    num_test: int = 0
    elsewhere: int = 0
    now_learnt: int = 0

    @property
    def count(self) -> int:
        """How often it was opened."""
        return len(self.each)

    @property
    def num_arms(self) -> int:
        """How many arms were measured on it in all."""
        return sum(len(opening.arms) for opening in self.each)

    def sentences(self) -> list[str]:
        """What a reader must know; nothing where the test set was opened once and is new."""
        found: list[str] = []
        if self.count > 1:
            found.append(
                f"This test set has been opened {self.count} times ({self.num_arms} arms in all): a best score of "
                "many is flattering; take a fresh test set for a last judgement."
            )
        if self.elsewhere:
            those = "All of" if self.elsewhere == self.num_test else f"{self.elsewhere} of"
            found.append(
                f"{those} its {plural(self.num_test, 'example')} stood in other test sets that have been opened: for "
                "those it is not fresh."
            )
        if self.now_learnt:
            found.append(
                f"{plural(self.now_learnt, 'example')} of other test sets that have been opened now teach or choose: "
                "what is made here must not be judged on those."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """As `comparison.json` holds it."""
        return {
            "count": self.count,
            "num_arms": self.num_arms,
            "elsewhere": self.elsewhere,
            "now_learnt": self.now_learnt,
            "each": [{**asdict(opening), "arms": list(opening.arms)} for opening in self.each],
            "sentences": self.sentences(),
        }


def hash_of_test(ids: Iterable[str]) -> str:
    """What tells test sets apart: their examples' ids, whatever the order."""
    return content_hash(sorted(ids))


def openings_of(test: str, seen: Iterable[Seen]) -> tuple[Opening, ...]:
    """The openings of a test set, oldest first; an arm that was measured before opens nothing again."""
    first: dict[str, Seen] = {}
    for one in seen:
        if one.test == test:
            first.setdefault(one.key, one)
    together: dict[str, list[Seen]] = {}
    for one in first.values():
        together.setdefault(one.opening, []).append(one)
    return tuple(_opening(group) for group in together.values())


def _opening(group: Sequence[Seen]) -> Opening:
    one = group[0]
    return Opening(one.date, one.run, one.base, tuple(dict.fromkeys(s.arm for s in group)))
