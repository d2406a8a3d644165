"""What is different between two runs, in sentences: examples, base, seed, settings, documents, packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailorbird.evaluation.run_record import PARTS, Part, RunRecord, Steps

NOTHING = "Nothing that scores depend on has changed."
_LETTERS = 60
_WORDS = {"train": "to learn from", "dev": "to choose", "test": "to test"}


@dataclass(frozen=True)
class Made:
    """What a run was made of.

    `reproduce` is what its comparison.json says, `record` and `parts` what lies in its folder, where that is at hand.
    """

    reproduce: Mapping[str, Any]
    record: RunRecord | None = None
    parts: Mapping[str, Part] | None = None

    def hash(self, what: str) -> str:
        """The fingerprint of a part of the data, empty where it is not known."""
        return str(self.reproduce.get("data", {}).get(what, ""))


def what_changed(then: Made, now: Made) -> list[str]:
    """What the later run has otherwise than the earlier; `NOTHING` alone where nothing is known to differ."""
    found = [
        *_plain(then, now),
        *_examples(then, now),
        *_documents(then, now),
        *_settings(then, now),
        *_packages(then, now),
    ]
    return found or [NOTHING]


def _plain(then: Made, now: Made) -> Iterator[str]:
    for name, label in (("base", "Base"), ("seed", "Seed")):
        before, after = then.reproduce.get(name), now.reproduce.get(name)
        if before is not None and after is not None and before != after:
            yield f"{label}: {before} → {after}."
    if then.hash("task") and then.hash("task") != now.hash("task"):
        yield "Task: the instruction, the labels or the most tokens of an answer are others."


def _examples(then: Made, now: Made) -> Iterator[str]:
    if then.parts is None or now.parts is None:
        for part in PARTS:
            if then.hash(part) and then.hash(part) != now.hash(part):
                yield f"Examples {_WORDS[part]}: others; which ones was not kept."
        return
    everything = _difference(_joined(then.parts), _joined(now.parts))
    if everything:
        yield f"Examples: {everything}."
    for part in PARTS:
        before, after = then.parts[part], now.parts[part]
        if found := _difference(before, after):
            yield f"Examples {_WORDS[part]}: {len(before.ids):,} → {len(after.ids):,}, {found}."


def _joined(parts: Mapping[str, Part]) -> Part:
    return Part(
        np.concatenate([parts[name].ids for name in PARTS]),
        np.concatenate([parts[name].prompts for name in PARTS]),
    )


def _difference(then: Part, now: Part) -> str:
    """`3 added, 1 removed, 2 relabelled`; empty where both hold the same."""
    added = now.prompts[~np.isin(now.ids, then.ids)]
    removed = then.prompts[~np.isin(then.ids, now.ids)]
    relabelled = len(np.intersect1d(added, removed))
    counts = {
        "added": len(added) - relabelled,
        "removed": len(removed) - relabelled,
        "relabelled": relabelled,
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count > 0)


def _documents(then: Made, now: Made) -> Iterator[str]:
    before, after = then.hash("documents"), now.hash("documents")
    if before == after or "data" not in then.reproduce:
        return
    if not before or not after:
        yield "Documents: there are some now, and were none." if after else "Documents: there are none now."
        return
    places = [made.record.documents if made.record else "" for made in (then, now)]
    if all(places) and places[0] != places[1]:
        yield f"Documents: {places[0]} → {places[1]}."
    else:
        yield "Documents: their content is another."


def _settings(then: Made, now: Made) -> Iterator[str]:
    """Arms of one name that are made otherwise."""
    keys = [made.reproduce.get("arms", {}) for made in (then, now)]
    recipes = [made.record.recipes if made.record else {} for made in (then, now)]
    other_base = then.reproduce.get("base") != now.reproduce.get("base")
    other_seed = then.reproduce.get("seed") != now.reproduce.get("seed")
    for arm in keys[1]:
        if arm not in keys[0] or keys[0][arm] == keys[1][arm]:
            continue
        if arm not in recipes[0] or arm not in recipes[1]:
            if not other_base and not other_seed:
                yield f"{arm}: other settings; which ones was not kept."
        elif found := _steps(recipes[0][arm], recipes[1][arm], ignored={"seed"} if other_seed else set()):
            yield f"{arm}: {found}."
        elif not other_base and not other_seed:
            yield f"{arm}: the base is another model of the same name."


def _steps(then: Steps, now: Steps, ignored: set[str]) -> str:
    names = ["+".join(step["technique"] for step in steps) or "nothing" for steps in (then, now)]
    if names[0] != names[1]:
        return f"{names[0]} → {names[1]}"
    found: list[str] = []
    for before, after in zip(then, now, strict=True):
        keys = [key for key in {**before, **after} if key not in ignored]
        found += [
            f"{key} {_value(before, key)} → {_value(after, key)}"
            for key in keys
            if before.get(key) != after.get(key)
        ]
    return ", ".join(found)


def _value(step: Mapping[str, Any], key: str) -> str:
    if key not in step:
        return "unknown"
    text = str(step[key])
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"


def _packages(then: Made, now: Made) -> Iterator[str]:
    before, after = then.reproduce.get("packages"), now.reproduce.get("packages")
    if before is None or after is None:
        return
    names = sorted({*before, *after})
    found = [
        f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}"
        for name in names
        if before.get(name) != after.get(name)
    ]
    python = [made.reproduce.get("python") for made in (then, now)]
    if all(python) and python[0] != python[1]:
        found.append(f"Python {python[0]} → {python[1]}")
    if found:
        yield f"Packages: {', '.join(found)}."
