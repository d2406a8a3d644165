"""Judge many arms on one frozen test set, paired by example: chosen on dev, confirmed once on test."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tailorbird.data.task import Data
from tailorbird.errors import DataError, NotFound, RecipeError
from tailorbird.evaluation import statistics
from tailorbird.evaluation.answer_cache import AnswerCache
from tailorbird.evaluation.arms import (
    Arm,
    ArmFinished,
    ArmRun,
    ArmStarted,
    Event,
    OnEvent,
    VerdictSoFar,
)
from tailorbird.evaluation.budget import Budget
from tailorbird.evaluation.comparison import ArmResult, Comparison
from tailorbird.evaluation.contest import Contest
from tailorbird.evaluation.contestant import Measuring
from tailorbird.evaluation.measures import measures_of
from tailorbird.evaluation.metrics import Metric, is_unanswerable, normalise
from tailorbird.evaluation.own_metrics import identities
from tailorbird.evaluation.run_folder import (
    arm_key,
    clear_unfinished,
    data_fingerprint,
    finished_arm,
    save_arm,
    save_comparison,
)
from tailorbird.evaluation.soundness import sound
from tailorbird.evaluation.verdict import MARGIN, Contender, NotJudged, Verdict, decide

PRICE_PER_HOUR = 0.10
"""US dollars for an hour of the machine that answers; a small rented one."""

PACKAGES = (
    "tailorbird",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "numpy",
    "scikit-learn",
    "onnxruntime",
)


def compare(
    arms: Sequence[Arm],
    data: Data,
    metrics: Mapping[str, Metric],
    *,
    primary: str,
    folder: Path | None = None,
    on_event: OnEvent | None = None,
    latency_requests: int = 12,
    batch_size: int = 32,
    price_per_hour: float = PRICE_PER_HOUR,
    budget: Budget | None = None,
    race: bool = False,
    cache: AnswerCache | None = None,
    expected_s: Mapping[str, float] | None = None,
    margin: float = MARGIN,
    seed: int = 0,
    reproduce: Mapping[str, Any] | None = None,
) -> Comparison:
    """Builds and measures the arms, and gives the verdict (rule: `verdict.py`; order: `contest.py`).

    With a `folder`, each finished arm is kept there and taken from there when the same comparison
    runs again, so a killed run continues where it stopped and ends with the same result.

    Args:
        arms: What to judge; names are unique.
        data: `dev` chooses and `test` confirms; neither may be empty.
        metrics: Metrics by name, all measured.
        primary: The metric that decides.
        folder: Where the run is kept; None keeps nothing.
        on_event: Told of every step, for live progress.
        latency_requests: Test requests answered one by one for p50 and p95; 0 for none.
        batch_size: Requests given to a model at once.
        price_per_hour: US dollars an hour of this machine costs; prices local answers.
        budget: What may be spent; arms that are not measured within it are recorded as stopped.
        race: Stop arms that are clearly behind on dev before all of it is answered; only dev is looked at.
        cache: Answers of earlier runs by the same models; None asks for all.
        expected_s: About how many seconds each arm will take, so that none is begun that can't be done in time.
        margin: Differences within ±margin count as none.
        seed: Of the resampling.
        reproduce: What the caller knows about repeating this (the command, seeds, the base model).

    Raises:
        DataError: dev or test is empty.
        RecipeError: no arms, or two of one name.
        NotFound: `primary` is none of the metrics.
    """
    _check(arms, data, metrics, primary)
    fingerprint = data_fingerprint(data)
    keys = {arm.name: arm_key(arm.name, arm.key, fingerprint, identities(metrics)) for arm in arms}
    if folder:
        clear_unfinished(folder)
    judge = _Judge({arm.name: arm for arm in arms}, data, primary, price_per_hour, margin, seed)
    runs: dict[str, ArmRun] = {}

    def finished(arm: Arm, run: ArmRun, *, reused: bool = False) -> None:
        runs[arm.name] = run
        if folder and not reused and not run.stopped:
            save_arm(folder, run, keys[arm.name])
        _tell(on_event, judge.finished(arm, run, reused=reused))
        if on_event and len(runs) < len(arms) and any(each.judged for each in runs.values()):
            on_event(VerdictSoFar(judge.verdict(runs), len(runs), len(arms)))

    for index, arm in enumerate(arms):
        if folder and (run := finished_arm(folder, arm.name, keys[arm.name])):
            _tell(on_event, ArmStarted(arm.name, index, len(arms)))
            finished(arm, run, reused=True)
    measuring = Measuring(
        data,
        metrics,
        budget or Budget(price_per_hour=price_per_hour),
        cache,
        on_event,
        latency_requests,
        batch_size,
    )
    Contest(arms, measuring, primary, race, seed, dict(runs), finished, expected_s or {}).run()
    runs = {arm.name: runs[arm.name] for arm in arms}
    result = judge.comparison(runs, {**_environment(arms, fingerprint, metrics, seed), **(reproduce or {})})
    _tell(on_event, VerdictSoFar(result.verdict, len(arms), len(arms)))
    if folder:
        save_comparison(folder, result)
    return result


@dataclass(frozen=True)
class _Judge:
    """Turns runs into results: the same numbers whether an arm ran now or was read from its folder."""

    arms: Mapping[str, Arm]
    data: Data
    primary: str
    price_per_hour: float
    margin: float
    seed: int

    def finished(self, arm: Arm, run: ArmRun, *, reused: bool) -> ArmFinished:
        if run.stopped:
            return ArmFinished(arm.name, "stopped", message=run.stopped)
        if run.failed:
            return ArmFinished(arm.name, "failed", message=run.failed)
        interval = self._interval(run)
        return ArmFinished(arm.name, "done", interval.mean, interval.low, interval.high, reused)

    def verdict(self, runs: Mapping[str, ArmRun]) -> Verdict:
        done = [run for run in runs.values() if run.judged]
        not_judged: dict[str, NotJudged] = {name: _why(run) for name, run in runs.items() if not run.judged}
        verdict = decide(
            [self._contender(run) for run in done],
            things="messages" if self.data.task.kind == "classify" else "questions",
            groups=done[0].test.groups if done else None,
            not_judged=not_judged,
            margin=self.margin,
            seed=self.seed,
        )
        return sound(verdict, self.data.test)

    def comparison(self, runs: Mapping[str, ArmRun], reproduce: Mapping[str, Any]) -> Comparison:
        verdict = self.verdict(runs)
        results = [self._result(name, run, verdict) for name, run in runs.items()]
        results.sort(key=lambda r: (r.score is None, -(r.score or 0.0), r.name))
        num_test = len(self.data.test)
        return Comparison(
            task=self.data.task.kind,
            metric=self.primary,
            num_test=num_test,
            arms=tuple(results),
            verdict=verdict,
            reproduce=reproduce,
            num_dev=len(self.data.dev),
            minimum_detectable_difference=statistics.minimum_detectable_difference(num_test),
            margin=self.margin,
            price_per_hour=self.price_per_hour,
            data=_data_facts(self.data),
            evaluations={name: run.test for name, run in runs.items() if run.judged},
        )

    def _contender(self, run: ArmRun) -> Contender:
        dev, test = run.dev.scores(self.primary), run.test.scores(self.primary)
        arm = self.arms[run.name]
        paid = arm.price.cost(run.tokens) / len(run.test.rows) if arm.price else 0.0
        return Contender(run.name, dev, test, self._compute(run), arm.floor, paid)

    def _interval(self, run: ArmRun) -> statistics.Interval:
        return statistics.score_interval(run.test.scores(self.primary), groups=run.test.groups)

    def _compute(self, run: ArmRun) -> float | None:
        if self.arms[run.name].floor:
            return 0.0
        tokens = run.tokens
        fresh = (tokens["input"] - tokens["cached"] + tokens["output"]) / len(run.test.rows)
        return None if run.num_parameters is None else fresh * run.num_parameters

    def _cost_per_1k(self, run: ArmRun) -> float:
        price = self.arms[run.name].price
        if price:
            return 1000 * price.cost(run.tokens) / len(run.test.rows)
        spent_s = sum(row.completion.seconds for row in run.test.rows)
        return 1000 * spent_s / len(run.test.rows) * self.price_per_hour / 3600

    def _result(self, name: str, run: ArmRun, verdict: Verdict) -> ArmResult:
        floor, base = self.arms[name].floor, self.arms[name].base
        if run.stopped:
            return ArmResult(
                name,
                base=base,
                train_s=run.train_s or None,
                stopped=True,
                stopped_why=run.stopped,
                floor=floor,
                dev_score=run.dev.mean(self.primary) if run.dev.rows else None,
                num_dev=len(run.dev.rows),
            )
        if run.failed:
            return ArmResult(name, base=base, train_s=run.train_s, failed=run.failed, floor=floor)
        interval, difference = self._interval(run), verdict.differences.get(name)
        return ArmResult(
            name=name,
            base=base,
            score=interval.mean,
            low=interval.low,
            high=interval.high,
            p_adjusted=difference and difference.p_adjusted,
            latency_p50_s=run.latency.p50_s,
            latency_p95_s=run.latency.p95_s,
            cost_per_1k=self._cost_per_1k(run),
            train_s=run.train_s,
            tokens=run.tokens,
            floor=floor,
            dev_score=run.dev.mean(self.primary),
            num_dev=len(run.dev.rows),
            difference=difference and difference.mean,
            difference_low=difference and difference.low,
            difference_high=difference and difference.high,
            secondary=measures_of(run, self.data.task, self.primary, floor=floor),
            invalid_rate=sum(not row.completion.valid for row in run.test.rows) / len(run.test.rows),
            compute_per_answer=self._compute(run),
            mismatches=run.latency.mismatches,
        )


def _check(arms: Sequence[Arm], data: Data, metrics: Mapping[str, Metric], primary: str) -> None:
    if not arms:
        raise RecipeError(
            "A comparison needs at least one arm; got none. Name some, such as base and few_shot."
        )
    twice = [name for name, times in Counter(arm.name for arm in arms).items() if times > 1]
    if twice:
        raise RecipeError(
            f"The arm {twice[0]!r} is named twice; expected every name once. Remove or rename one."
        )
    for split, examples in (("dev", data.dev), ("test", data.test)):
        if not examples:
            raise DataError(
                f"The {split} split has no examples; a comparison chooses on dev and confirms on test. "
                "Give more examples, or split off some."
            )
    if primary not in metrics:
        raise NotFound(
            f"The metric {primary!r} is not among those given: {', '.join(metrics) or 'none'}. Add it."
        )


def _why(run: ArmRun) -> NotJudged:
    if run.failed:
        return "failed"
    return "behind" if run.behind else "stopped"


def _tell(on_event: OnEvent | None, event: Event) -> None:
    if on_event:
        on_event(event)


def _data_facts(data: Data) -> dict[str, Any]:
    seen = {normalise(example.prompt) for example in (*data.train, *data.dev)}
    facts: dict[str, Any] = {
        "num_train": len(data.train),
        "num_dev": len(data.dev),
        "num_test": len(data.test),
        "repeated_in_test": sum(normalise(example.prompt) in seen for example in data.test),
    }
    if data.task.kind == "classify":
        splits = [Counter(e.completion for e in examples) for examples in (data.train, data.dev, data.test)]
        facts["labels"] = {label: [counts[label] for counts in splits] for label in data.task.labels}
    else:
        facts["num_unanswerable"] = sum(is_unanswerable(example) for example in data.test)
    return facts


def _environment(
    arms: Sequence[Arm], fingerprint: Mapping[str, str], metrics: Mapping[str, Metric], seed: int
) -> dict[str, Any]:
    """What a later reader needs to get the same numbers: data, arms, versions, the kind of machine."""
    return {
        "data": dict(fingerprint),
        "arms": {arm.name: arm.key for arm in arms},
        "metrics": identities(metrics),
        "seed": seed,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
