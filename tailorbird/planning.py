"""From files and flags to a plan: which arms, on which data, judged how. Nothing is run here."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.bases import AT, Base, bases_of
from tailorbird.data.columns import Columns
from tailorbird.data.findings import findings
from tailorbird.data.formats import read_examples
from tailorbird.data.keys import is_on_disk, keys_of
from tailorbird.data.problems import Problem
from tailorbird.data.schemas import check_schema
from tailorbird.data.splits import Splits, split
from tailorbird.data.task import Data, Task, infer_task, task_of
from tailorbird.default_arms import default_arms
from tailorbird.errors import InputError, NotFound, RecipeError
from tailorbird.measuring import check_metrics, metric_name, metrics_of
from tailorbird.recipe_file import KNOWLEDGE, ArmSpec, RecipeFile
from tailorbird.records import Example, content_hash
from tailorbird.sources.live_sources import LiveSource
from tailorbird.wanted import JUDGED, NOTHING_BESIDE, Extras, JudgeChoice

if TYPE_CHECKING:
    from tailorbird.techniques.technique import Recipe

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,99}")
DEFAULT_SHARE = 0.2


@dataclass(frozen=True)
class Plan:
    """A comparison, resolved; nothing has run yet.

    `bases` are what arms start from, `arms` are what is compared, `folder` is where the run is kept, `notes` say
    what was done to the data, `command` is what the user typed, for the report. With `shard` the processes that
    train together share layers out, which what is made depends on no more than on their number. `price_per_hour`
    is what an hour of this machine costs, in US dollars; None leaves it to `evaluation.compare`. `budget_s` and
    `budget_usd` are what may be spent, with `race` arms that are clearly behind on dev are stopped, and with
    `fresh` no answers of earlier runs are taken over. `metric` decides; `measured` are the metrics that were
    asked for, as `measuring` knows them. `judge` is whose opinion is asked at the end, `extras` what is measured
    beside. `problems` are what may mislead about the examples.
    """

    name: str
    bases: tuple[Base, ...]
    task: Task
    arms: tuple[ArmSpec, ...]
    data: Data
    metric: str
    seed: int = 0
    folder: Path = Path()
    budget_s: float | None = None
    budget_usd: float | None = None
    race: bool = True
    fresh: bool = False
    notes: tuple[str, ...] = ()
    command: str = ""
    shard: bool = False
    measured: tuple[str, ...] = ()
    judge: JudgeChoice | None = None
    price_per_hour: float | None = None
    extras: Extras = NOTHING_BESIDE
    problems: tuple[Problem, ...] = ()

    @property
    def base(self) -> str:
        """The MODEL references of the bases, in words."""
        return ", ".join(base.reference for base in self.bases)

    def base_of(self, spec: ArmSpec) -> Base:
        """What an arm starts from."""
        return next((base for base in self.bases if base.name == spec.base), self.bases[0])

    @property
    def sources(self) -> list[str]:
        """The names of the live sources that any arm asks."""
        return asked_live(self.arms)

    @property
    def key(self) -> str:
        """Hash of what the run's answers depend on; documents and single arms have hashes of their own."""
        data = self.data
        parts = [[e.id for e in part] for part in (data.train, data.dev, data.test)]
        documents = str(data.documents.resolve()) if data.documents else None
        task = [self.task.kind, self.task.instruction, list(self.task.labels), self.task.max_tokens]
        return content_hash([self.base, task, parts, documents, self.metric, self.seed], 10)


def asked_live(arms: Sequence[ArmSpec]) -> list[str]:
    """The names of the live sources that any of the arms asks."""
    steps = [step for arm in arms for step in arm.steps]
    return list(dict.fromkeys(source.name for step in steps for source in step.settings.get("sources", ())))


@dataclass(frozen=True)
class Flags:
    """What a command line says; None where it says nothing. Flags win over the recipe file."""

    examples: Path | None = None
    test: Path | None = None
    documents: Path | None = None
    base: str | Sequence[str] | None = None
    arms: Sequence[str] | None = None
    seed: int | None = None
    name: str | None = None
    key_env: str | None = None
    limit_test: int | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    sources: Sequence[str] | None = None
    metric: str | None = None
    metrics: Sequence[str] | None = None
    price_per_hour: float | None = None
    curve: bool | None = None
    ablate: bool | None = None
    seeds: int | None = None


def overlay(file: RecipeFile, flags: Flags) -> RecipeFile:
    """The recipe file with the flags in it."""
    if flags.sources:
        file = file.with_sources(flags.sources)
    flags = replace(flags, sources=None)
    given = {f.name: getattr(flags, f.name) for f in fields(flags) if getattr(flags, f.name) is not None}
    for several in {"arms", "metrics", "base"} & given.keys():
        if not isinstance(given[several], str):
            given[several] = tuple(given[several])
    return replace(file, **given)


def make_plan(file: RecipeFile) -> Plan:
    """A plan from a recipe file (flags already laid over it).

    Raises:
        InputError: no examples.
        NotFound: a file or folder is not there.
        DataError: the examples can't be used.
        RecipeError: an arm or a setting makes no sense.
    """
    source = _required(file.examples)
    bases = _bases(file)
    seed = file.seed or 0
    documents = _documents(file)
    splits, task = read_splits(file, source)
    wanted, left_out = file.arms or tuple(spec.name for spec in file.arm_specs), ()
    if not wanted:
        wanted, left_out = default_arms(
            classify=task.kind == "classify",
            documents=documents is not None or bool(file.settings.get(KNOWLEDGE, {}).get("sources")),
            examples=splits.train,
            bases=bases,
        )
    specs, untrained = arms_on([file.arm(word) for word in wanted], bases)
    for spec in specs:
        build_recipe(spec)  # every setting is checked before anything runs
    live = asked_live(specs)
    data = splits.data(task, documents)
    measured = tuple(filter(None, (file.metric, *(file.metrics or ()))))
    metric = metric_name(file.metric) if file.metric else default_metric_name(task)
    check_metrics(metrics_of(task, measured), (metric, *measured), data)
    note = f"{', '.join(live)}: asked live, once for each question; latencies leave that out from then on"
    return Plan(
        name=valid_name(file.name or source.stem),
        bases=bases,
        task=task,
        arms=specs,
        data=data,
        metric=metric,
        measured=measured,
        seed=seed,
        notes=(*splits.notes, *left_out, *untrained, *([note] if live else [])),
        price_per_hour=_price_per_hour(file.price_per_hour),
        extras=Extras(bool(file.curve), bool(file.ablate), _seeds(file.seeds)),
        judge=_judge(file),
        problems=findings(splits, file=source.name, test=file.test.name if file.test else None),
    )


def _judge(file: RecipeFile) -> JudgeChoice | None:
    """The judge that a recipe file names; a flag's takes its place later."""
    if file.judge is None:
        return None
    limit = JUDGED if file.judge_limit is None else file.judge_limit
    if limit < 1:
        raise RecipeError(f"judge_limit is {limit}; expected 1 or more test examples. 40 are usual.")
    return JudgeChoice(file.judge, limit, file.judge_key_env)


def _price_per_hour(price: float | None) -> float | None:
    if price is not None and not 0 <= price < math.inf:
        raise RecipeError(
            f"price_per_hour is {price}; expected 0 or more US dollars, what an hour of this machine costs."
        )
    return price


def _seeds(seeds: int | None) -> int:
    if seeds is not None and seeds < 1:
        raise RecipeError(f"seeds is {seeds}; expected 1 or more. 3 to 5 show how far seeds move a score.")
    return seeds or 1


def plan_single(name: str, file: RecipeFile, spec: ArmSpec) -> Plan:
    """A plan of one recipe that is made and not judged: all examples but dev's are learnt from.

    Without examples only what needs none (knowledge) can be applied.
    """
    documents = _documents(file)
    if file.examples is not None:
        splits, task = read_splits(replace(file, test=None, test_share=0.0), file.examples)
        data = splits.data(task, documents)
    else:
        task = Task("answer", file.instruction or "Answer the question briefly.")
        data = Data(task, (), documents=documents)
    bases = _bases(file)
    if len(bases) > 1:
        raise RecipeError(
            f"base: one model is made of one base, and there are {len(bases)}: "
            f"{', '.join(base.name for base in bases)}. Name one with --base."
        )
    metric = default_metric_name(task)
    return Plan(valid_name(name), bases, task, (spec,), data, metric, file.seed or 0)


def arms_on(specs: Sequence[ArmSpec], bases: Sequence[Base]) -> tuple[tuple[ArmSpec, ...], tuple[str, ...]]:
    """The arms, each on every base that it does not choose itself, and what to tell of those that can't be.

    With one base arms keep their names. Weights of endpoints can't be trained: where another base can, arms that train
    leave endpoints out.

    Raises:
        RecipeError: an arm names a base that is not there, or two arms have one name.
    """
    if len(bases) == 1 and not any(spec.base for spec in specs):
        return tuple(specs), ()
    known = {base.name: base for base in bases}
    found: list[ArmSpec] = []
    without: dict[str, list[str]] = {}
    for spec in specs:
        if spec.base and (spec.base not in known or not spec.on_base):
            why = "is none of the bases" if spec.base not in known else "is not what it starts from"
            raise RecipeError(
                f"arm {spec.name!r}: {spec.base!r} {why}. Bases: {', '.join(known)}. Give the base with --base or in "
                f"base = […], or leave {AT}{spec.base} out."
            )
        if spec.base or not spec.on_base or len(bases) == 1:
            found.append(spec)
            continue
        local = [base for base in bases if not base.remote]
        chosen = local if spec.trains_base and local else bases
        found += [replace(spec, name=f"{spec.name}{AT}{base.name}", base=base.name) for base in chosen]
        for base in bases:
            if base not in chosen:
                without.setdefault(base.name, []).append(spec.name)
    names = [spec.name for spec in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"arm {twice[0]!r} is there twice. Name every arm once.")
    notes = [
        f"{', '.join(names)}: not on {base}, an endpoint's model, whose weights can't be trained"
        for base, names in without.items()
    ]
    return tuple(found), tuple(notes)


def _bases(file: RecipeFile) -> tuple[Base, ...]:
    return bases_of(file.base, file.bases, key_env=file.key_env, price=file.price)


def read_splits(file: RecipeFile, source: Path) -> tuple[Splits, Task]:
    """The examples, shared out, and the task that they make."""
    columns = Columns(file.prompt_column, file.completion_column)
    examples = read_examples(source, columns)
    given = read_examples(file.test, columns) if file.test is not None else None
    splits = split(
        examples,
        seed=file.seed or 0,
        dev=DEFAULT_SHARE if file.dev_share is None else file.dev_share,
        test=DEFAULT_SHARE if file.test_share is None else file.test_share,
        test_examples=given,
        limit_dev=file.limit_dev,
        limit_test=file.limit_test,
    )
    return splits, _task(file, [examples, *([given] if given is not None else [])])


def _task(file: RecipeFile, sets: Sequence[Sequence[Example]]) -> Task:
    """The task of all examples together; those on disk are not read again for it."""
    if any(is_on_disk(examples) for examples in sets):
        task = _task_on_disk(file, sets)
    else:
        task = infer_task([example for examples in sets for example in examples], file.instruction)
    if file.schema is None:
        return task
    if not file.schema.is_file():
        raise NotFound(
            f"{file.schema}: no such file. Give a JSON schema with schema = FILE, or leave it out."
        )
    schema = check_schema(file.schema.read_text(encoding="utf-8-sig"), str(file.schema))
    # Documents of a schema are no labels, however few there are.
    longest = max((len(e.completion) for e in sets[0][:1000]), default=80)
    return replace(task, kind="answer", labels=(), schema=schema, max_tokens=min(512, max(32, longest)))


def _task_on_disk(file: RecipeFile, sets: Sequence[Sequence[Example]]) -> Task:
    keys = [keys_of(examples) for examples in sets]
    counts: Counter[str] | None = Counter()
    for found in keys:
        counts = None if counts is None or found.counts is None else counts + Counter(found.counts)
    return task_of(counts, file.instruction, longest=max(found.longest for found in keys))


def build_recipe(
    spec: ArmSpec,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_step: Callable[[Any], None] | None = None,
    on_estimate: Callable[[Any], bool] | None = None,
    on_dev: Callable[[Any], None] | None = None,
    shard: bool = False,
) -> Recipe:
    """The techniques of an arm; those that train get the seed, a folder for checkpoints and listeners.

    Raises:
        RecipeError: layers are to be shared out, and none of the steps trains any.
    """
    from tailorbird.techniques.technique import Recipe

    techniques = []
    for number, step in enumerate(spec.steps):
        technique = step.build()
        known = {f.name for f in fields(technique)}
        extra: dict[str, Any] = {}
        if "seed" in known and "seed" not in step.settings:
            extra["seed"] = seed
        if "checkpoint" in known and checkpoint is not None:
            extra["checkpoint"] = checkpoint / str(number)
        if "on_step" in known and on_step is not None:
            extra["on_step"] = on_step
        if "on_estimate" in known and on_estimate is not None:
            extra["on_estimate"] = on_estimate
        if "on_dev" in known and on_dev is not None:
            extra["on_dev"] = on_dev
        if "shard" in known and shard:
            extra["shard"] = True
        techniques.append(replace(technique, **extra) if extra else technique)
    if shard and not any(hasattr(technique, "shard") for technique in techniques):
        raise RecipeError(
            f"shard: of the steps {[step.technique for step in spec.steps]} none trains layers that could be shared "
            "out. Leave --shard out, or add fine_tune or from_scratch."
        )
    return Recipe(tuple(techniques))


def described(spec: ArmSpec, seed: int = 0) -> list[dict[str, Any]]:
    """An arm's steps with every setting, defaults included, as JSON: equal descriptions build equal models."""
    steps = []
    for step, technique in zip(spec.steps, build_recipe(spec, seed=seed).steps, strict=True):
        settings = {f.name: getattr(technique, f.name) for f in fields(technique) if f.compare}  # type: ignore[arg-type]
        steps.append({"technique": step.technique, **{k: _plain(v) for k, v in settings.items()}})
    return steps


def valid_name(name: str) -> str:
    """The name, if it can be a folder's and a model's.

    Raises:
        InputError: it can't.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"name {name!r}: expected a letter or digit and then up to 99 letters, digits, '.', '_', '+', '@' or '-'. "
            "Choose another with --name."
        )
    return name


def default_metric_name(task: Task) -> str:
    """The name of the metric that decides."""
    from tailorbird.evaluation.metrics import default_metric

    return default_metric(task)[0]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, LiveSource):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _required(examples: Path | None) -> Path:
    if examples is None:
        raise InputError(
            'There are no examples. Give a file of {"prompt": …, "completion": …} lines with --examples FILE, '
            "or write a tailor.toml that names one (`tailor init`)."
        )
    return examples


def _documents(file: RecipeFile) -> Path | None:
    """The folder of documents, which must not hold the examples: their answers would be looked up there."""
    documents = file.documents
    if documents is None:
        return None
    if not documents.is_dir():
        raise NotFound(
            f"{documents}: no such folder of documents. Give an existing folder with --documents DIR."
        )
    for path in (file.examples, file.test):
        if path is not None and path.resolve().is_relative_to(documents.resolve()):
            raise RecipeError(
                f"{documents}: this folder of documents holds the examples too ({path.name}), and their answers would "
                "be looked up in it. Move them out, or name a folder that holds the documents alone."
            )
    return documents
