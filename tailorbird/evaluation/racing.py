"""Racing: arms answer growing blocks of dev, and those that are clearly behind stop.

Blocks double (successive halving: Karnin, Koren & Somekh 2013, ICML, alg. 2; racing with paired tests: Birattari et
al. 2002, F-Race). After each, every arm is compared with the leader on all that both have answered, paired by example.
An arm stops where a one-sided paired test says that it is behind, at `UPPER` in the better half of those that race
and at `LOWER` in the other, so that halves are dropped where the evidence allows it and never without any. Baselines
take part as opponents and answer all of dev, for they cost next to nothing.

Dev is looked at several times, and so the chance that the best arm is stopped grows with every look; in the better
half the level is a fifth of a verdict's for that reason. The verdict itself rests on test, which no race reads.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from tailorbird.data.task import TaskKind
from tailorbird.evaluation.arms import Begun
from tailorbird.evaluation.metrics import is_unanswerable
from tailorbird.evaluation.statistics import paired_p_value
from tailorbird.records import Example

FIRST = 16
"""Dev examples of the first block."""
UPPER, LOWER = 0.01, 0.05
FEWEST = 3
"""Arms that are no baselines: fewer don't race."""


@dataclass(frozen=True)
class Stopped:
    """Why an arm no longer raced: after so many dev examples it was this far behind the leader.

    `behind` is the mean paired difference in [0, 1], `p` of the one-sided test that stopped it. `share` is set where
    its training was stopped: both were trained to this part of their steps.
    """

    after: int
    of: int
    leader: str
    behind: float
    p: float
    share: float | None = None

    @property
    def sentence(self) -> str:
        """For a person."""
        points = f"{100 * self.behind:.0f} points"
        if self.share is None:
            return f"clearly behind {self.leader} after {self.after} of {self.of} dev examples: {points}"
        return (
            f"clearly behind {self.leader} when both were trained to {self.share:.0%} of their steps: {points} on "
            f"{self.after} dev examples; trained no further"
        )


def behind_in_training(
    begun: Mapping[str, Begun],
    dev: Sequence[Example],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> dict[str, Stopped]:
    """Which of the models that were trained to the same share of their steps are trained no further, and why.

    Orders at equal shares mostly hold to the end (successive halving rests on that), but not always, so the test is
    the same as between models that are whole.

    Args:
        begun: by arm, how far it is trained, and its scores there.
        dev: all dev examples.
        groups: the cluster of every dev example, where examples share documents.
        seed: of the permutation test.
    """
    places = {example.id: index for index, example in enumerate(dev)}
    alike: dict[float, dict[str, dict[int, float]]] = {}
    for arm, one in begun.items():
        placed = {places[name]: score for name, score in one.scores.items()}
        alike.setdefault(round(one.share, 2), {})[arm] = placed
    ended: dict[str, Stopped] = {}
    for share, rows in alike.items():
        if len(rows) < 2 or not set.intersection(*(set(row) for row in rows.values())):
            continue
        found = behind(rows, list(rows), num_dev=len(dev), groups=groups, seed=seed)
        ended |= {arm: replace(stopped, share=share) for arm, stopped in found.items()}
    return ended


def blocks(examples: Sequence[Example], kind: TaskKind, seed: int = 0) -> list[list[int]]:
    """Dev's indices in growing blocks, each prefix with its fair share of every label.

    The first block has 16, each further one doubles what was answered. Strata are labels, or of free answers those
    with and without an answer in the documents.
    """
    strata: dict[Hashable, list[int]] = {}
    for index, example in enumerate(examples):
        stratum = example.completion if kind == "classify" else is_unanswerable(example)
        strata.setdefault(stratum, []).append(index)
    dice = random.Random(seed)
    places: list[tuple[float, int]] = []
    for members in strata.values():
        dice.shuffle(members)
        offset = dice.random()
        places += [((rank + offset) / len(members), index) for rank, index in enumerate(members)]
    order = [index for _, index in sorted(places)]
    found, begin, end = list[list[int]](), 0, FIRST
    while begin < len(order):
        # What would be left for a block of less than half its size is added to the one before.
        end = len(order) if len(order) < 1.5 * end else end
        found.append(order[begin:end])
        begin, end = end, 2 * end
    return found


def behind(
    scores: Mapping[str, Mapping[int, float]],
    racing: Sequence[str],
    *,
    num_dev: int,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> dict[str, Stopped]:
    """Which of the racing arms stop now, and why.

    Args:
        scores: by arm, the score of every dev example that it has answered, by index; of opponents too.
        racing: the arms that may be stopped; they have answered the same examples.
        num_dev: how many dev examples there are.
        groups: the cluster of every dev example, where examples share documents.
        seed: of the permutation test.
    """
    if not racing:
        return {}
    seen = sorted(set.intersection(*(set(scores[name]) for name in racing)))
    means = {
        name: sum(row[i] for i in seen) / len(seen)
        for name, row in scores.items()
        if all(i in row for i in seen)
    }
    leader = max(means, key=lambda name: (means[name], name))
    ranked = sorted(racing, key=lambda name: (-means[name], name))
    better = set(ranked[: (len(ranked) + 1) // 2])
    found: dict[str, Stopped] = {}
    for name in ranked:
        gap = means[leader] - means[name]
        if name == leader or gap <= 0:
            continue
        both = ([scores[arm][i] for i in seen] for arm in (leader, name))
        units = [groups[i] for i in seen] if groups else None
        # Half of the two-sided one: only the side on which the arm is behind counts.
        p = paired_p_value(*both, groups=units, seed=seed) / 2
        if p <= (UPPER if name in better else LOWER):
            found[name] = Stopped(len(seen), num_dev, leader, gap, p)
    return found
