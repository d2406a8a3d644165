"""Settings of sources and connectors, as files and `--set` give them, against the types that these say they take."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from typing import Any, get_origin

from tailorbird.errors import RecipeError

_KINDS_OF_VALUE: Mapping[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
    "Mapping": (dict,), "dict": (dict,), "tuple": (tuple, list, str), "Sequence": (tuple, list, str),
}  # fmt: skip
_IN_WORDS = {"bool": "true or false"}


def check_type(where: str, key: str, value: Any, annotation: Any) -> None:
    """A value against an annotation, where that is a plain one.

    Raises:
        RecipeError: it is of another type.
    """
    words = _words(annotation)
    parts = _parts(words)
    if any(part not in _KINDS_OF_VALUE and part != "None" for part in parts):
        return
    allowed = tuple(t for part in parts for t in _KINDS_OF_VALUE.get(part, ()))
    if value is None and "None" in parts:
        return
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise RecipeError(f"{where}: {key} is {value!r}; expected {_IN_WORDS.get(words, words)}.")


def checked_settings(where: str, make: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as `make` takes them: a whole number or a date becomes the text that one was meant to be.

    What `make` says of a setting is the annotation of its parameter, or of the field of the frozen dataclass that it
    is or returns. Names that it doesn't know are left to itself.

    Raises:
        RecipeError: a value is of another type than the one that is named.
    """
    known = _annotations(make)
    found: dict[str, Any] = {}
    for key, given in settings.items():
        value = given
        if key in known:
            parts = _parts(_words(known[key]))
            is_like_text = isinstance(given, int | date) and not isinstance(given, bool)
            if is_like_text and "str" in parts and "int" not in parts:
                value = str(given)
            check_type(where, key, value, known[key])
        found[key] = value
    return found


def _words(annotation: Any) -> str:
    """An annotation as it is written, whether it is kept as text or as a type."""
    return str(getattr(annotation, "__name__", annotation) if not get_origin(annotation) else annotation)


def _parts(words: str) -> list[str]:
    return [word.split("[")[0].strip() for word in words.split("|")]


def _annotations(make: Callable[..., Any]) -> dict[str, Any]:
    """By the name of a setting, the annotation as it is written."""
    if is_dataclass(make):
        return {f.name: f.type for f in fields(make) if f.init}
    found: dict[str, Any] = {}
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of some that are written in C
        return found
    made = signature.return_annotation
    if isinstance(made, str):
        made = getattr(sys.modules.get(make.__module__), made, None)
    if is_dataclass(made):
        found |= {f.name: f.type for f in fields(made) if f.init}
    named = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    found |= {p.name: p.annotation for p in signature.parameters.values() if p.kind in named}
    return {name: told for name, told in found.items() if told is not inspect.Parameter.empty}
