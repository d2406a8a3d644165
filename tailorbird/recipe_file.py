"""TOML files <-> what to compare: the base, the data, the arms and their techniques' settings.

    base = "starter"                         # a MODEL, or several in a list: see `bases`
    examples = "tickets.jsonl"               # or a JSON array, CSV, TSV, Parquet
    prompt_column = "text"                   # optional: which columns hold prompt and completion
    documents = "handbook"                   # optional
    arms = ["base", "few_shot", "few_shot+fine_tune"]    # optional
    metric = "rouge_l"                       # optional: what decides; metrics = [...] are measured beside it

    [few_shot]                               # settings of a technique, in every arm that uses it
    k = 5

    [[arm]]                                  # an arm with settings of its own
    name = "few_shot_three"
    base = "starter"                         # optional: one of several
    steps = [{ technique = "few_shot", k = 3 }]

    [knowledge]                              # live sources, by a kind's name or the name of a table below
    sources = ["wikipedia", "shop"]

    [sources.shop]
    kind = "search_api"
    url = "https://shop.example/search?q={query}&n={k}"

Relative paths are relative to the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tailorbird.bases import AT, beside_file, read_bases, read_price
from tailorbird.errors import NotFound, RecipeError
from tailorbird.measuring import beside
from tailorbird.plugins import FLOORS, names, part
from tailorbird.sources.live_sources import LiveSource, live_kinds, live_source

TECHNIQUES = "tailorbird.techniques"
KNOWLEDGE = "knowledge"
BASE_ARM = "base"
FROM_NOTHING = "from_scratch"
TRAINS = frozenset({"fine_tune", FROM_NOTHING})
"""Techniques that train weights."""
NOT_SETTINGS = frozenset({"checkpoint", "on_step", "on_estimate", "on_dev", "shard", "source"})
"""Fields of techniques that a program gives, not a file."""

INITIAL_CONFIG = """\
# What `tailor compare` compares. Paths are relative to this file.
base = "starter"                 # or a folder, a .gguf file, hf:org/name, URL#model; several: ["starter", "mini"]
examples = "examples.jsonl"      # lines of {"prompt": "…", "completion": "…"}, chats, CSV, Parquet, …
# prompt_column = "text"         # which columns hold them, where their names don't tell
# completion_column = "label"
# documents = "documents"        # a folder of text, PDF, Office and other files: adds the knowledge arms
# test = "test.jsonl"            # a test set of your own; without it 20 % of the examples are set apart
# schema = "answer.schema.json"  # a JSON schema that free answers keep to
# metric = "rouge_l"             # what decides, in place of accuracy, token F1 or the fields of JSON
# metrics = ["chrf"]             # measured beside it; "FILE.py:FUNCTION" is one of your own
# instruction = "…"              # what the model is told; without it one is made from the task
# arms = ["majority", "tfidf_linear", "base", "few_shot", "fine_tune", "few_shot+fine_tune"]

# price_per_hour = 0.10          # US dollars for an hour of this machine: what local answers cost
# judge = "URL#model"            # asked, too, whose answers are better; judge_limit = 40, judge_key_env = "NAME"
# seeds = 3                      # train and draw the leading arms so many times: how much is chance
# curve = true                   # and on fewer labels: what more of them would bring
# ablate = true                  # and without each of their parts

# Settings of a technique, in every arm that uses it:
# [few_shot]
# k = 5                          # examples shown, 3 to 5 are typical
# select = "nearest"             # or "balanced", "fixed"
# [price]                        # what the endpoint takes, in US dollars per million tokens
# input = 0.15
# output = 0.60
# cached = 0.075
# [bases.mini]                   # a short name for a base, with what an endpoint needs
# model = "https://api.example/v1#mini"
# key_env = "EXAMPLE_KEY"
# price = { input = 0.15, output = 0.60 }
# [knowledge]                    # what is asked live, beside the documents or without any
# sources = ["wikipedia"]
# [fine_tune]
# method = "lora"                # or "rslora", "dora", "pissa", "eva", "full"
# objective = "dpo"              # for rows with "chosen" and "rejected": learn to prefer the first
# epochs = 4
"""
"""What `tailor init` writes."""


@dataclass(frozen=True)
class Step:
    """One technique by name, with its settings as written."""

    technique: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """The technique with these settings.

        Raises:
            RecipeError: a setting that it doesn't have, or a value that it can't take.
        """
        try:
            make = part(TECHNIQUES, self.technique)
        except NotFound as error:
            raise RecipeError(str(error)) from None
        known = {f.name: f for f in fields(make) if f.name not in NOT_SETTINGS}
        if unknown := sorted(set(self.settings) - set(known)):
            raise RecipeError(
                f"technique {self.technique!r}: unknown setting {unknown[0]!r}. "
                f"It has: {', '.join(known) or 'none'}."
            )
        settings = {
            k: Path(v) if k == "documents" else tuple(v) if isinstance(v, list) else v
            for k, v in self.settings.items()
        }
        for name, value in settings.items():
            _check_type(self.technique, name, value, str(known[name].type))
        return make(**settings)


@dataclass(frozen=True)
class ArmSpec:
    """An arm by name, and its steps; the base arm has none. `base` names one of several bases, empty the first."""

    name: str
    steps: tuple[Step, ...]
    base: str = ""

    @property
    def floor(self) -> bool:
        """Whether this arm is one of the fitted floors."""
        return len(self.steps) == 1 and self.steps[0].technique in FLOORS

    @property
    def on_base(self) -> bool:
        """Whether it starts from the base: floors, and what is trained from nothing, bring weights of their own."""
        return not self.steps or self.steps[0].technique not in {*FLOORS, FROM_NOTHING}

    @property
    def trains_base(self) -> bool:
        """Whether it trains the base's weights, which no endpoint lets us."""
        return self.on_base and any(step.technique in TRAINS for step in self.steps)


@dataclass(frozen=True)
class RecipeFile:
    """What a `tailor.toml` says; None where it says nothing."""

    base: str | tuple[str, ...] | None = None
    name: str | None = None
    examples: Path | None = None
    test: Path | None = None
    documents: Path | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    instruction: str | None = None
    schema: Path | None = None
    metric: str | None = None
    metrics: tuple[str, ...] | None = None
    seed: int | None = None
    key_env: str | None = None
    limit_dev: int | None = None
    limit_test: int | None = None
    price_per_hour: float | None = None
    curve: bool | None = None
    ablate: bool | None = None
    seeds: int | None = None
    judge: str | None = None
    judge_limit: int | None = None
    judge_key_env: str | None = None
    dev_share: float | None = None
    test_share: float | None = None
    arms: tuple[str, ...] | None = None
    arm_specs: tuple[ArmSpec, ...] = ()
    steps: tuple[Step, ...] | None = None
    price: Mapping[str, float] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def arm(self, name: str) -> ArmSpec:
        """The arm of this name: one that the file spells out, or one whose name joins techniques with '+'.

        What follows an '@' names the base, where there are several.

        Raises:
            RecipeError: a part of the name is no technique.
        """
        for spec in self.arm_specs:
            if spec.name == name:
                return spec
        recipe, _, base = name.partition(AT)
        if base:
            return replace(self.arm(recipe), name=name, base=base)
        if name == BASE_ARM:
            return ArmSpec(name, ())
        techniques = [word.strip() for word in name.split("+")]
        known = names(TECHNIQUES)
        for word in techniques:
            if word not in known:
                raise RecipeError(
                    f"arm {name!r}: {word!r} is no technique. Known: base, {', '.join(known)}; join them with '+', "
                    "as in few_shot+fine_tune."
                )
        return ArmSpec(name, tuple(self.step(word) for word in techniques))

    def step(self, technique: str) -> Step:
        """A technique with the settings that the file gives it."""
        return self.found_sources(Step(technique, dict(self.settings.get(technique, {}))))

    def found_sources(self, step: Step) -> Step:
        """The step with the live sources that it names, in place of their names."""
        words = step.settings.get("sources")
        if step.technique != KNOWLEDGE or words is None:
            return step
        if not isinstance(words, list | tuple):
            raise RecipeError(
                f'knowledge: sources is {words!r}; expected a list of names, such as ["wikipedia"].'
            )
        found = tuple(word if isinstance(word, LiveSource) else self.live_source(word) for word in words)
        return replace(step, settings={**step.settings, "sources": found})

    def live_source(self, name: object) -> LiveSource:
        """The live source of a name: that of a table, or that of a kind which needs no settings.

        Raises:
            RecipeError: there is none, or its settings can't be taken.
        """
        if not isinstance(name, str) or name not in {*self.sources, *live_kinds()}:
            known = ", ".join(dict.fromkeys([*self.sources, *live_kinds()]))
            raise RecipeError(
                f"knowledge: the source {name!r} is unknown. Known: {known}. Give it a table [sources.{name}] with its "
                "kind and settings in the recipe or tailor.toml, or correct the name."
            )
        return live_source(name, self.sources.get(name, {}))

    def with_sources(self, chosen: Sequence[str]) -> RecipeFile:
        """The same with these live sources in every step that looks things up."""
        found = [self.live_source(name) for name in chosen]

        def given(steps: tuple[Step, ...]) -> tuple[Step, ...]:
            return tuple(
                replace(s, settings={**s.settings, "sources": found}) if s.technique == KNOWLEDGE else s
                for s in steps
            )

        own = {**self.settings.get(KNOWLEDGE, {}), "sources": found}
        return replace(
            self,
            settings={**self.settings, KNOWLEDGE: own},
            arm_specs=tuple(replace(spec, steps=given(spec.steps)) for spec in self.arm_specs),
            steps=None if self.steps is None else given(self.steps),
        )


_PLAIN: Mapping[str, type | tuple[type, ...]] = {
    "name": str, "examples": str, "test": str, "documents": str, "prompt_column": str,
    "completion_column": str, "instruction": str, "schema": str, "metric": str,
    "seed": int, "key_env": str, "limit_dev": int, "limit_test": int, "dev_share": float, "test_share": float,
    "judge": str, "judge_limit": int, "judge_key_env": str,
    "price_per_hour": float, "curve": bool, "ablate": bool, "seeds": int,
}  # fmt: skip
_PATHS = ("examples", "test", "documents", "schema")


def read_recipe_file(path: Path) -> RecipeFile:
    """Reads a TOML file.

    Raises:
        NotFound: no such file.
        RecipeError: not TOML, an unknown key, or a value of the wrong type.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file. `tailor init` writes a tailor.toml to start from.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML ({error}). Correct the line it names.") from error
    return _recipe_file(path, raw)


def _recipe_file(path: Path, raw: dict[str, Any]) -> RecipeFile:
    techniques = names(TECHNIQUES)
    values: dict[str, Any] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    for key, value in raw.items():
        if key in _PLAIN:
            values[key] = _plain(path, key, value)
        elif key in techniques:
            settings[key] = _table(path, key, value)
        elif key == "arms":
            values["arms"] = tuple(_strings(path, key, value))
        elif key == "metrics":
            values["metrics"] = tuple(beside(path.parent, name) for name in _strings(path, key, value))
        elif key == "base":
            values["base"] = _base(path, value)
        elif key == "bases":
            values["bases"] = read_bases(path, value)
        elif key == "price":
            values["price"] = read_price(path, "price", value)
        elif key == "sources":
            values["sources"] = _sources(path, value)
        elif key not in ("arm", "steps"):
            known = [
                "base",
                "bases",
                *_PLAIN,
                "metrics",
                "arms",
                "arm",
                "steps",
                "price",
                "sources",
                *techniques,
            ]
            raise RecipeError(f"{path}: unknown key {key!r}. Known: {', '.join(known)}.")
    found = RecipeFile(**values, settings=settings)
    specs = tuple(_arm(path, found, table) for table in _list(path, "arm", raw.get("arm", [])))
    steps = _steps(path, found, raw["steps"]) if "steps" in raw else None
    return RecipeFile(**values, settings=settings, arm_specs=specs, steps=steps)


def _plain(path: Path, key: str, value: Any) -> Any:
    expected = _PLAIN[key]
    number = expected is float and isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, expected) or number) or (isinstance(value, bool) and expected is not bool):
        name = getattr(expected, "__name__", str(expected))
        raise RecipeError(f"{path}: {key} is {value!r}; expected a {name}. Correct the value.")
    if key == "metric":
        return beside(path.parent, str(value))
    return (path.parent / Path(str(value)).expanduser()) if key in _PATHS else value


def _table(path: Path, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(
            f"{path}: [{key}] is {value!r}; expected a table of settings, such as [{key}] and k = 5."
        )
    table = dict(value)
    if isinstance(table.get("documents"), str):
        table["documents"] = str(path.parent / table["documents"])
    return table


def _sources(path: Path, value: Any) -> Mapping[str, Mapping[str, Any]]:
    """Tables of live sources by name; a database's file is relative to this one."""
    if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
        raise RecipeError(
            f"{path}: sources is {value!r}; expected a table for each source, such as [sources.shop] and kind = "
            '"search_api". Which of them are asked is said by sources = ["shop"] in [knowledge].'
        )
    found = {name: dict(table) for name, table in value.items()}
    for table in found.values():
        place = table.get("database")
        if isinstance(place, str) and "://" not in place:
            table["database"] = str((path.parent / Path(place).expanduser()).resolve())
    return found


def _list(path: Path, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RecipeError(f"{path}: {key} is {value!r}; expected a list.")
    return value


def _strings(path: Path, key: str, value: Any) -> list[str]:
    items = _list(path, key, value)
    for item in items:
        if not isinstance(item, str):
            raise RecipeError(f"{path}: {key} holds {item!r}; expected names in quotes.")
    return items


def _arm(path: Path, found: RecipeFile, table: Any) -> ArmSpec:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise RecipeError(
            f'{path}: an [[arm]] has no name. Got {table!r}; expected name = "…" and steps = […].'
        )
    if extra := sorted(set(table) - {"name", "steps", "base"}):
        raise RecipeError(
            f"{path}: arm {table['name']!r} has an unknown key {extra[0]!r}. Known: name, base, steps."
        )
    base = table.get("base", "")
    if not isinstance(base, str):
        raise RecipeError(
            f"{path}: arm {table['name']!r}: base is {base!r}; expected the name of one of the bases, in quotes."
        )
    if "steps" not in table:
        return replace(found.arm(table["name"]), base=base)
    return ArmSpec(table["name"], _steps(path, found, table["steps"]), base)


def _base(path: Path, value: Any) -> str | tuple[str, ...]:
    """One MODEL or several; what lies beside the file is meant before what lies elsewhere."""
    if isinstance(value, str):
        return beside_file(path.parent, value)
    if not isinstance(value, list) or not value:
        raise RecipeError(
            f"{path}: base is {value!r}; expected a MODEL in quotes, or a list of several. Correct the value."
        )
    return tuple(beside_file(path.parent, word) for word in _strings(path, "base", value))


def _steps(path: Path, found: RecipeFile, value: Any) -> tuple[Step, ...]:
    steps: list[Step] = []
    for item in _list(path, "steps", value):
        if isinstance(item, str):
            steps.append(found.step(item))
        elif isinstance(item, dict) and isinstance(item.get("technique"), str):
            own = {key: setting for key, setting in item.items() if key != "technique"}
            step = Step(item["technique"], {**found.step(item["technique"]).settings, **own})
            steps.append(found.found_sources(step))
        else:
            raise RecipeError(
                f'{path}: a step is {item!r}; expected a technique\'s name or {{ technique = "few_shot", k = 3 }}.'
            )
    return tuple(steps)


def _check_type(technique: str, name: str, value: Any, annotation: str) -> None:
    """Values from a file or a flag are checked against the technique's own annotation."""
    allowed: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "Path": (Path,),
        "tuple[float, ...]": (tuple,),
    }
    words = [word.strip() for word in annotation.split("|")]
    if words == ["bool"] and not isinstance(value, bool):
        raise RecipeError(f"technique {technique!r}: {name} is {value!r}; expected true or false.")
    types = tuple(t for word in words for t in allowed.get(word, ()))
    if not types or (value is None and "None" in words):
        return
    if not isinstance(value, types) or isinstance(value, bool):
        raise RecipeError(f"technique {technique!r}: {name} is {value!r}; expected {annotation}.")


def steps_of(words: Sequence[str], found: RecipeFile) -> tuple[Step, ...]:
    """Steps named one by one, as `--steps knowledge,fine_tune` does."""
    return found.arm("+".join(word.strip() for word in words)).steps if words else ()
