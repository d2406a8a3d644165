"""What is kept of a comparison beside its answers: what it was made of, its test set's past, the run before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tailorbird.data.storage import write_atomic
from tailorbird.evaluation.against import against, check_comparable
from tailorbird.evaluation.arms import Arm
from tailorbird.evaluation.changes import Made, what_changed
from tailorbird.evaluation.comparison import Comparison
from tailorbird.evaluation.metrics import Metric
from tailorbird.evaluation.own_metrics import identities
from tailorbird.evaluation.run_folder import arm_key, data_fingerprint, save_comparison
from tailorbird.evaluation.run_record import RunRecord, load_examples, load_record, save_examples, save_record
from tailorbird.evaluation.warnings import warnings_of
from tailorbird.history import REPORT, Earlier, History
from tailorbird.opened_tests import OpenedTests, OpeningWatch, watched
from tailorbird.planning import Plan, described


@dataclass(frozen=True)
class KeptRun:
    """A comparison under way.

    Args:
        plan: what is compared.
        record: what its folder says of it.
        opening: keeps which test set it opens, for which arms.
        earlier: the run that it is held against, if any.
    """

    plan: Plan
    record: RunRecord
    opening: OpeningWatch
    earlier: Earlier | None

    def hear(self, on_event: Callable[[Any], None] | None) -> Callable[[Any], None]:
        """What to tell of the comparison's events; it passes them on to `on_event`."""
        return replace(self.opening, tell=on_event)

    def told(self, result: Comparison) -> Comparison:
        """The result with what must be known of it: warnings, openings of its test set, the earlier run."""
        plan = self.plan
        result = replace(
            result,
            warnings=warnings_of(result, plan.data, plan.problems),
            openings=self.opening.opened.past(plan.data).to_json(),
        )
        if self.earlier is None:
            return result
        earlier = self.earlier
        made = Made(result.reproduce, self.record, load_examples(plan.folder))
        held = against(
            earlier.comparison,
            result,
            run=earlier.name,
            date=earlier.date,
            what_changed=what_changed(earlier.made, made),
            seed=plan.seed,
        )
        return replace(result, against=held.to_json())

    def finish(self, result: Comparison, report: Path) -> None:
        """Keeps the result and its report in the run's folder, wherever else they were put."""
        folder = self.plan.folder
        if report.resolve() != (folder / REPORT).resolve():
            write_atomic(folder / REPORT, report.read_bytes())
        save_comparison(folder, result)
        save_record(folder, replace(self.record, finished=time.time(), report=str(report.resolve())))


def kept_run(
    state: Path, plan: Plan, arms: Sequence[Arm], metrics: Mapping[str, Metric], reference: str | None
) -> KeptRun:
    """Begins to keep a comparison: reads the earlier run before anything of it can be replaced.

    Args:
        state: the project's state folder.
        plan: what is compared.
        arms: as `evaluation.compare` gets them.
        metrics: all metrics by name.
        reference: the earlier run, as `History.earlier` takes it; None for none.

    Raises:
        NotFound: there is no such earlier run.
        InputError: it was judged by another metric.
    """
    earlier = None
    if reference is not None:
        fingerprint = data_fingerprint(plan.data)
        keys = {arm.name: arm_key(arm.name, arm.key, fingerprint, identities(metrics)) for arm in arms}
        earlier = History(state).earlier(reference, plan.folder, keys)
        check_comparable(earlier.comparison, plan.metric, reference)
    old = load_record(plan.folder)
    record = RunRecord(
        name=plan.name,
        base=plan.base,
        seed=plan.seed,
        documents=str(plan.data.documents) if plan.data.documents else "",
        started=old.started if old else time.time(),
        finished=old.finished if old else 0.0,
        report=old.report if old else "",
        recipes={spec.name: described(spec, plan.seed) for spec in plan.arms},
        against=earlier.key if earlier else (old.against if old else ""),
    )
    save_record(plan.folder, record)
    save_examples(plan.folder, plan.data)
    opened = OpenedTests(state / "openings")
    opening = watched(opened, arms, plan.data, plan.folder.name, plan.base, None)
    return KeptRun(plan, record, opening, earlier)
