"""A request's body as a JSON value that is safe to work on: no bombs, no half characters."""

from __future__ import annotations

import json
from typing import Any

from tailorbird.server.failures import Refusal

DEEPEST_JSON = 64


def read_json(body: bytes) -> Any:
    """The JSON of a body: UTF-8, no NaN, no lone surrogates, nested at most `DEEPEST_JSON` deep.

    Raises:
        Refusal: it is not that.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise Refusal(
            f"body: not JSON in UTF-8 ({error}). Send one JSON object.", code="invalid_json"
        ) from error
    _check_nesting(value)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _check_nesting(value: Any) -> None:
    """Walks a parsed value level by level, so that depth costs no stack."""
    level: list[Any] = [value]
    depth = 0
    while level:
        for text in (v for v in level if isinstance(v, str)):
            _check_text(text)
        lists = [v for v in level if isinstance(v, list)]
        objects = [v for v in level if isinstance(v, dict)]
        if (lists or objects) and depth == DEEPEST_JSON:
            raise _too_deep()
        level = [item for v in lists for item in v]
        level += [part for v in objects for pair in v.items() for part in pair]
        depth += 1


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(f"body: a string holds half a character ({error.reason}). Send whole ones.") from error


def _too_deep() -> Refusal:
    return Refusal(f"body: nested deeper than {DEEPEST_JSON} levels. Send it flatter.", code="invalid_json")
