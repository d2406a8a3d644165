"""What arms start from: one base, or several side by side, each under a short name.

    base = ["starter", "mini"]        # MODELs, or names of tables below

    [bases.mini]                      # what an endpoint needs, and a name that is shorter than it
    model = "https://api.example/v1#mini-2026"
    key_env = "EXAMPLE_KEY"           # optional: the environment variable with its key
    price = { input = 0.15, output = 0.60 }     # optional

With several bases an arm is tried on each, as `few_shot@starter` and `few_shot@mini`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tailorbird.errors import RecipeError
from tailorbird.references import STARTER, is_remote

AT = "@"
"""Between an arm's name and its base's."""
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")
_KEYS = ("model", "key_env", "price")


@dataclass(frozen=True)
class Base:
    """A model that arms start from.

    `name` tells it from the others of a comparison, `reference` is the MODEL. `key_env` names the environment
    variable with an endpoint's key, None takes the usual one; `price` is what an endpoint takes, in US dollars per
    million tokens, by `input`, `output` and, where it is cheaper, `cached`.
    """

    name: str
    reference: str
    key_env: str | None = None
    price: Mapping[str, float] | None = None

    @property
    def remote(self) -> bool:
        """Whether it is an endpoint, whose weights can't be trained here."""
        return is_remote(self.reference)


def short_name(reference: str) -> str:
    """A name for a MODEL reference: an endpoint's model, a hub model without its owner, a file without its folders.

    >>> [short_name(text) for text in ("https://x.example/v1#a/mini", "hf:org/name", "models/my.gguf", "starter")]
    ['mini', 'name', 'my', 'starter']
    """
    text = reference.partition("#")[2] if is_remote(reference) else reference.removeprefix("hf:")
    last = Path(text.replace("\\", "/")).name
    return _UNUSUAL.sub("-", last.removesuffix(".gguf")).strip("-._") or "base"


def bases_of(
    words: str | Sequence[str] | None,
    tables: Mapping[str, Mapping[str, Any]],
    *,
    key_env: str | None = None,
    price: Mapping[str, float] | None = None,
) -> tuple[Base, ...]:
    """The bases that are named, in their order; the starter where none is.

    Args:
        words: MODEL references or names of tables.
        tables: those of a recipe file, by name.
        key_env: of endpoints that name none of their own.
        price: of the only endpoint, if it names none of its own.

    Raises:
        RecipeError: one is named twice, or a price can't be meant.
    """
    named = [words] if isinstance(words, str) else list(words or [])
    found: list[Base] = []
    for word in named or [STARTER]:
        table = tables.get(word, {})
        reference = str(table.get("model", word))
        if any(base.reference == reference for base in found):
            raise RecipeError(f"base {word!r} is named twice. Name every base once.")
        name = word if word in tables else short_name(reference)
        taken = {base.name for base in found} | (set(tables) - {word})
        number = 2
        while name in taken:
            name = f"{short_name(reference)}-{number}"
            number += 1
        own = table.get("key_env", key_env if is_remote(reference) else None)
        found.append(Base(name, reference, own, table.get("price")))
    return _priced(found, price)


def _priced(bases: Sequence[Base], price: Mapping[str, float] | None) -> tuple[Base, ...]:
    """The bases, the only endpoint with the price that was given for it."""
    without = [base for base in bases if base.remote and base.price is None]
    if price is not None and not any(base.remote for base in bases):
        raise RecipeError(
            f"price: the base {bases[0].reference!r} is on this machine, where nothing is paid by the token. Leave "
            "[price] out, or name an endpoint's model, URL#model."
        )
    if price is not None and len(without) > 1:
        names = ", ".join(base.name for base in without)
        raise RecipeError(
            f"price: [price] is one, and there are several endpoints: {names}. Give each a table [bases.NAME] with its "
            "model and its price."
        )
    return tuple(
        Base(base.name, base.reference, base.key_env, price) if price and base in without else base
        for base in bases
    )


def read_bases(path: Path, value: Any) -> Mapping[str, Mapping[str, Any]]:
    """The tables [bases.NAME] of a recipe file; a model's file or folder is relative to it.

    Raises:
        RecipeError: no such tables.
    """
    tables = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if not tables or not all(_is_table(table) for table in tables.values()):
        raise RecipeError(
            f"{path}: bases is {value!r}; expected a table for each base, such as [bases.mini] with model = "
            '"URL#model", and key_env and price where an endpoint needs them.'
        )
    for name in tables:
        if _UNUSUAL.search(name):
            raise RecipeError(
                f"{path}: [bases.{name}]: expected a name of letters, digits, '.', '_' and '-'. Choose another."
            )
    return {
        name: {
            **table,
            "model": beside_file(path.parent, table["model"]),
            **(
                {"price": read_price(path, f"bases.{name}.price", table["price"])} if "price" in table else {}
            ),
        }
        for name, table in tables.items()
    }


def beside_file(folder: Path, reference: str) -> str:
    """A MODEL reference of a file in this folder: what lies beside the file is meant, if it is there.

    It stays as it was written where it names the same from here.
    """
    written = Path(reference).expanduser()
    place = folder / written
    if is_remote(reference) or reference == STARTER or not place.exists():
        return reference
    return reference if written.exists() and written.samefile(place) else str(place)


def read_price(path: Path, key: str, value: Any) -> Mapping[str, float]:
    """US dollars per million tokens: input, output, and cached input where that is cheaper.

    Raises:
        RecipeError: something else.
    """
    table = dict(value) if isinstance(value, dict) else {}
    numbers = all(type(v) in (int, float) and 0 <= v < math.inf for v in table.values())
    if not numbers or not {"input", "output"} <= set(table) <= {"input", "output", "cached"}:
        raise RecipeError(
            f"{path}: [{key}] is {value!r}; expected input and output, and cached if cached input is cheaper, in US "
            "dollars per million tokens."
        )
    return {name: float(number) for name, number in table.items()}


def _is_table(table: Any) -> bool:
    return (
        isinstance(table, dict)
        and set(cast("dict[str, Any]", table)) <= set(_KEYS)
        and isinstance(table.get("model"), str)
        and isinstance(table.get("key_env", ""), str)
    )
