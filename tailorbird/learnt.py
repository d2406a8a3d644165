"""Which examples a model has learnt from, kept with it, so that nobody judges it on them unknowingly.

model/learnt.npy   64-bit hashes of the prompts that it, or what it was made from, learnt from or was chosen by
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tailorbird.catalogue import model_folder
from tailorbird.data.keys import Hashes, keys_of
from tailorbird.data.problems import Problem, plural
from tailorbird.data.task import Data
from tailorbird.planning import Plan

LEARNT = "learnt.npy"


def keep_learnt(building: Path, data: Data | None, base_folder: Path | None) -> None:
    """Writes into a model's folder what it has seen: examples to learn from and to choose, and what its base saw."""
    seen = [keys_of(part).prompts for part in ((data.train, data.dev) if data else ())]
    if base_folder is not None:
        seen.append(learnt_by(base_folder))
    if seen:
        np.save(building / LEARNT, np.unique(np.concatenate(seen)), allow_pickle=False)


def learnt_by(folder: Path) -> Hashes:
    """The prompts that a saved model has seen, as hashes; none where that was not kept."""
    try:
        return np.load(folder / LEARNT, allow_pickle=False)
    except (OSError, ValueError):
        return np.array([], dtype=np.uint64)


def seen_before(state: Path, plan: Plan) -> tuple[Problem, ...]:
    """What must be said of bases that were made from examples which are to test them now."""
    asked = keys_of(plan.data.test).prompts
    return tuple(_problems(state, plan, asked))


def _problems(state: Path, plan: Plan, asked: Hashes) -> Sequence[Problem]:
    found: list[Problem] = []
    for base in plan.bases:
        folder = model_folder(state, base.reference)
        count = int(np.isin(asked, learnt_by(folder)).sum()) if folder is not None else 0
        if count:
            what = f"it has learnt from {count:,} of {plural(len(asked), 'test example')}, or was chosen by them."
            fix = (
                "Scores of arms that start from it are of what it has seen before, and no others. Give examples that "
                "it never saw with --test, or compare on the base that it was made from."
            )
            found.append(Problem("error", f"base {base.reference}", what, fix))
    return found
