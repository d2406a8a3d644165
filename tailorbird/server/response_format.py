"""`response_format`: closed sets of answers, and JSON schemas that free answers keep to. None is ever ignored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tailorbird.server.failures import Refusal

MOST_CHOICES = 1000
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ANNOTATIONS = frozenset({"title", "description", "$schema", "$defs", "definitions", "default", "examples"})
"""Keywords of a schema that do not bear on what is valid."""
ADVICE = "A set of answers is an enum of different strings, alone or as the one property of an object."
ANY_OBJECT = '{"type": "object"}'
"""What `json_object` asks for."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema, as JSON, that the answer must be a valid document of."""

    text: str


@dataclass(frozen=True, slots=True)
class ClosedSet:
    """The answers that a schema allows; `property_name` is the object's one property, if it is an object."""

    choices: tuple[str, ...]
    property_name: str | None = None

    def worded(self, choice: str) -> str:
        """A choice as the schema wants it written."""
        if self.property_name is None:
            return choice
        return json.dumps({self.property_name: choice}, ensure_ascii=False)


def read_response_format(value: Any) -> ClosedSet | Schema | None:
    """What `response_format` limits the answer to; None if to nothing.

    Raises:
        Refusal: a schema that cannot be kept to, so that none is ever ignored.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise _wrong("response_format", "expected an object with 'type': 'text' or 'json_schema'.")
    kind = value["type"]
    _only(value, {"type", "json_schema"} if kind == "json_schema" else {"type"}, "response_format")
    if kind == "text":
        return None
    if kind == "json_object":
        return Schema(ANY_OBJECT)
    if kind != "json_schema":
        raise _refused(
            "response_format.type",
            f"{kind[:40]!r} is not supported; expected 'text', 'json_object' or 'json_schema'.",
        )
    form = value.get("json_schema")
    if not isinstance(form, dict):
        raise _wrong("response_format.json_schema", "expected an object with 'name' and 'schema'.")
    _only(form, {"name", "schema", "strict", "description"}, "response_format.json_schema")
    if not isinstance(form.get("name"), str) or not NAME.fullmatch(form["name"]):
        raise _wrong("response_format.json_schema.name", "expected 1 to 64 letters, digits, '_' and '-'.")
    if form.get("strict") not in (None, True, False):
        raise _wrong("response_format.json_schema.strict", "expected true or false.")
    schema = form.get("schema")
    if not isinstance(schema, dict):
        raise _wrong("response_format.json_schema.schema", "expected a JSON schema, an object.")
    try:
        return _closed_set(schema, "response_format.json_schema.schema")
    except Refusal:  # more than a set of answers: the model's grammar keeps to it, or refuses it
        return Schema(json.dumps(schema, ensure_ascii=False))


def _closed_set(schema: dict[str, Any], where: str) -> ClosedSet:
    definitions = {**_mapping(schema.get("definitions")), **_mapping(schema.get("$defs"))}
    if schema.get("type") != "object":
        return ClosedSet(_enum(schema, where, definitions))
    _only(schema, {"type", "properties", "required", "additionalProperties", *ANNOTATIONS}, where)
    properties = schema.get("properties")
    if not isinstance(properties, dict) or len(properties) != 1:
        raise _refused(f"{where}.properties", f"expected exactly one property. {ADVICE}")
    name, inner = next(iter(properties.items()))
    if schema.get("required", [name]) not in ([name], []):
        raise _wrong(f"{where}.required", f"expected [{json.dumps(name)}].")
    if schema.get("additionalProperties", False) not in (True, False):
        raise _refused(f"{where}.additionalProperties", "expected false.")
    return ClosedSet(_enum(inner, f"{where}.properties.{name}", definitions), name)


def _enum(schema: Any, where: str, definitions: Mapping[str, Any]) -> tuple[str, ...]:
    """The strings of an enum, of a constant, or of a reference to one."""
    if isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str):
        _only(schema, {"$ref", *ANNOTATIONS}, where)
        name = reference.rsplit("/", 1)[-1]
        if reference not in (f"#/$defs/{name}", f"#/definitions/{name}") or name not in definitions:
            raise _refused(f"{where}.$ref", f"expected a reference to a definition in this schema. {ADVICE}")
        schema = definitions[name]
        if isinstance(schema, dict) and "$ref" in schema:
            raise _refused(f"{where}.$ref", f"a reference to a reference is not supported. {ADVICE}")
    if not isinstance(schema, dict) or not {"enum", "const"} & set(schema):
        raise _refused(where, f"this schema is no closed set. {ADVICE}")
    _only(schema, {"type", "enum", "const", *ANNOTATIONS}, where)
    values = schema.get("enum", [schema.get("const")])
    if "enum" in schema and "const" in schema:
        raise _refused(where, f"'enum' and 'const' together are not supported. {ADVICE}")
    if schema.get("type", "string") != "string" or not isinstance(values, list):
        raise _refused(where, f"only enums of strings are supported. {ADVICE}")
    if not 1 <= len(values) <= MOST_CHOICES or not all(isinstance(v, str) and v for v in values):
        raise _wrong(f"{where}.enum", f"expected 1 to {MOST_CHOICES} strings that are not empty.")
    if len(set(values)) != len(values):
        raise _wrong(f"{where}.enum", "it names a string twice. Name every string once.")
    return tuple(values)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _only(given: Mapping[str, Any], allowed: set[str], where: str) -> None:
    """Refuses a keyword that would be ignored."""
    if rest := set(given) - allowed:
        raise _refused(f"{where}.{min(rest)}"[:200], f"not supported here. {ADVICE}")


def _wrong(param: str, message: str) -> Refusal:
    return Refusal(f"{param}: {message}", param=param[:200])


def _refused(param: str, message: str) -> Refusal:
    return Refusal(f"{param}: {message}", param=param[:200], code="unsupported_parameter")
