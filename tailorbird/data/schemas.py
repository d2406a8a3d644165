"""JSON schemas that answers keep to, as texts."""

from __future__ import annotations

import json

from tailorbird.errors import InputError


def check_schema(schema: str, where: str = "schema") -> str:
    """The schema, if it is JSON and an object.

    Raises:
        InputError: it is not.
    """
    try:
        found = json.loads(schema)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error}). Give a JSON schema, an object.") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: got {schema[:60]!r}; expected a JSON schema, an object.")
    return schema
