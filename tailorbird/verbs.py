"""The command line's verbs as functions: check, compare, customize, export, open_model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.data.columns import Columns
from tailorbird.workbench import Flags, JudgeChoice, ModelInfo, OpenModel, Workbench

if TYPE_CHECKING:
    from tailorbird.data.report import DatasetReport
    from tailorbird.evaluation.comparison import Comparison
    from tailorbird.workbench import Exported

AnyPath = str | PathLike[str]


def check(
    examples: AnyPath,
    documents: AnyPath | None = None,
    test: AnyPath | None = None,
    *,
    prompt_column: str | None = None,
    completion_column: str | None = None,
) -> DatasetReport:
    """The data set report: counts, balance, duplicates, contradictions, leakage, and what to mend."""
    return Workbench().check(
        Path(examples),
        _path(documents),
        _path(test),
        columns=Columns(prompt_column, completion_column),
    )


def compare(
    examples: AnyPath,
    documents: AnyPath | None = None,
    *,
    base: str | Sequence[str] = "starter",
    arms: Sequence[str] | None = None,
    test: AnyPath | None = None,
    seed: int = 0,
    budget_s: float | None = None,
    budget_usd: float | None = None,
    race: bool = True,
    fresh: bool = False,
    limit_test: int | None = None,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    sources: Sequence[str] | None = None,
    metric: str | None = None,
    metrics: Sequence[str] | None = None,
    judge: str | None = None,
    judge_limit: int = 40,
    price_per_hour: float | None = None,
    curve: bool = False,
    ablate: bool = False,
    seeds: int = 1,
    out: AnyPath | None = None,
    against: str | None = None,
    project: AnyPath = ".",
    on_event: Callable[[Any], None] | None = None,
) -> Comparison:
    """Customizes `base` in every arm's way, measures all on the same held-out examples, and judges.

    Finished arms are kept in `project`'s `.tailorbird`; the same call goes on where a killed one stopped.

    Args:
        examples: JSON lines, a JSON array, CSV, TSV or Parquet, of any usual shape.
        documents: a folder to answer from.
        base: a MODEL: `starter`, a folder, a .gguf file, `hf:org/name`, `URL#model`; or several, and every arm is
            tried on each.
        arms: names of techniques joined with '+'; None takes a sensible set.
        test: a test file; None sets a fifth of the examples apart.
        seed: of splits, training and resampling.
        budget_s: seconds that it may take; the best arm so far is measured within them, and what is not is said.
        budget_usd: US dollars that it may cost: endpoints' tokens, and this machine's time.
        race: stop arms that are clearly behind on dev, with three or more that are no baselines.
        fresh: ask everything anew, instead of taking over what the same models answered before.
        limit_test: test examples used, at most.
        prompt_column: which column or key holds the prompt, where its name doesn't tell.
        completion_column: likewise the completion.
        sources: live sources that knowledge asks, by name, such as `wikipedia` or those of tailor.toml.
        metric: what decides: a built-in name such as `rouge_l`, an installed one, or `FILE.py:FUNCTION`; None takes the
            task's own.
        metrics: further ones, measured beside it.
        judge: a MODEL that is asked which of two arms' answers is better; it never changes the verdict.
        judge_limit: test examples on which it is asked, at most.
        price_per_hour: US dollars that an hour of this machine costs; None takes 0.10.
        curve: measure the leading arms on fewer labels too: what would more of them bring?
        ablate: measure the leading arms without each of their parts too.
        seeds: measure the leading arms with so many seeds and draws of the labels: how much is chance?
        out: folder for report.html and comparison.json; None leaves them in the run's folder.
        against: an earlier run to hold it against: `LAST`, a run's name, or the path of a comparison.json.
        project: the project folder.
        on_event: told about every step.

    Raises:
        TailorbirdError: anything about the input that can't be used; see `tailorbird.errors`.
    """
    called = _called(locals())
    workbench = Workbench(Path(project))
    flags = Flags(
        examples=Path(examples),
        test=_path(test),
        documents=_path(documents),
        base=base,
        arms=arms,
        seed=seed,
        limit_test=limit_test,
        prompt_column=prompt_column,
        completion_column=completion_column,
        sources=sources,
        metric=metric,
        metrics=metrics,
        price_per_hour=price_per_hour,
        curve=curve,
        ablate=ablate,
        seeds=seeds,
    )
    choice = JudgeChoice(judge, judge_limit) if judge is not None else None
    plan = workbench.comparisons.plan(flags, judge=choice)
    plan = replace(plan, budget_s=budget_s, budget_usd=budget_usd, race=race, fresh=fresh)
    plan = replace(plan, command=called)
    expected = workbench.comparisons.forecast(plan) if budget_s or budget_usd else ()
    outcome = workbench.comparisons.run(
        plan, expected=expected, out=_path(out), on_event=on_event, against=against
    )
    return outcome.comparison


def customize(
    name: str,
    steps: Sequence[str],
    examples: AnyPath | None = None,
    documents: AnyPath | None = None,
    *,
    base: str = "starter",
    prompt_column: str | None = None,
    completion_column: str | None = None,
    sources: Sequence[str] | None = None,
    overwrite: bool = False,
    shard: bool = False,
    project: AnyPath = ".",
) -> ModelInfo:
    """Applies techniques in order, such as `["knowledge", "fine_tune"]`, and saves the model under `name`.

    `sources` are live sources that knowledge asks, by name, such as `wikipedia` or those of tailor.toml.
    With `shard` the processes that torchrun started share the model's layers out.
    """
    workbench = Workbench(Path(project))
    plan = workbench.plan_one(
        name=name,
        steps=steps,
        examples=_path(examples),
        documents=_path(documents),
        base=base,
        columns=Columns(prompt_column, completion_column),
        sources=sources,
    )
    return workbench.customize(replace(plan, shard=shard), overwrite=overwrite)


def export(
    reference: str,
    to: str,
    out: AnyPath,
    *,
    dtype: str | None = None,
    examples: AnyPath | None = None,
    overwrite: bool = False,
    project: AnyPath = ".",
) -> Exported:
    """Writes a model as `gguf`, `safetensors` or `vllm` into the folder `out`, if it answers there as it does here.

    Raises:
        ReplayMismatch: it does not; nothing is put in place.
    """
    return Workbench(Path(project)).export(
        reference, to, Path(out), dtype=dtype, examples=_path(examples), replace=overwrite
    )


def open_model(reference: str, *, project: AnyPath = ".") -> OpenModel:
    """A model by saved name, arm of the last comparison, `winner`, or any MODEL reference; `.ask(text)` asks it."""
    return Workbench(Path(project)).open(reference)


def _called(given: Mapping[str, Any]) -> str:
    """The call of `compare` that repeats this one, without what is as it is by default."""
    usual = {name: parameter.default for name, parameter in signature(compare).parameters.items()}
    said = {name: value for name, value in given.items() if name != "on_event" and value != usual[name]}
    plain = {
        k: fspath(v) if isinstance(v, PathLike) else list(v) if isinstance(v, tuple) else v
        for k, v in said.items()
    }
    examples = plain.pop("examples")
    return f"tailorbird.compare({', '.join([repr(examples), *(f'{k}={v!r}' for k, v in plain.items())])})"


def _path(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)
