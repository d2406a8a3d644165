"""Instructions that a strong model behind an endpoint proposes, for the race on dev to try.

What it is told: the task's labels, some examples spread over them, and the present instruction (as in Zhou et al.
2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv 2211.01910). Nothing is taken on trust.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from tailorbird.data.task import Data
from tailorbird.errors import EndpointError, RecipeError
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Message, Request, Sampling
from tailorbird.techniques.selection import balanced

log = logging.getLogger(__name__)

NUM_PROPOSED = 4
SHOWN_EXAMPLES, SHOWN_LABELS = 12, 100
MOST_LETTERS = 600
"""A longer instruction is not tried."""
SCHEMA = {
    "type": "object",
    "properties": {
        "instructions": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": NUM_PROPOSED,
            "maxItems": NUM_PROPOSED,
        }
    },
    "required": ["instructions"],
    "additionalProperties": False,
}


def endpoint(reference: str, key_env: str, what: str = "few_shot") -> RemoteWeights:
    """The model that proposes: `URL#model`; `what` it proposes for begins the error.

    Raises:
        RecipeError: it is no endpoint.
    """
    url, mark, model = reference.partition("#")
    if "://" not in url or not mark or not model:
        raise RecipeError(f"{what}: proposer is {reference!r}; expected an endpoint's model, URL#model.")
    return RemoteWeights(url, model, key_env)


def proposed_instructions(proposer: RemoteWeights, data: Data, seed: int) -> tuple[str, ...]:
    """Up to `NUM_PROPOSED` instructions; none, and a warning, where the endpoint gives nothing usable.

    Raises:
        EndpointError: it can't be reached, or refuses.
    """
    text = answered_json(proposer, _question(data, seed), SCHEMA)
    found = [line for line in dict.fromkeys(_read(text)) if 0 < len(line) <= MOST_LETTERS]
    if not found:
        log.warning("few_shot: %s proposed no usable instruction: %r.", proposer.name, text[:80])
    return tuple(found[:NUM_PROPOSED])


def answered_json(proposer: RemoteWeights, question: str, schema: dict[str, Any]) -> str:
    """The endpoint's answer, which is to keep to a JSON schema; asked without it where it knows none.

    Raises:
        EndpointError: it can't be reached, or refuses.
    """
    request = Request((Message("user", question),), Sampling(max_tokens=1024), schema=json.dumps(schema))
    try:
        return proposer.answer([request])[0].text
    except EndpointError as error:
        if error.status not in (400, 404, 415, 422, 501):
            raise
        return proposer.answer([replace(request, schema=None)])[0].text


def json_list(text: str, name: str) -> list[Any]:
    """The list of this name in a JSON answer, whatever stands around it; empty where there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1])[name]
    except (ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def _question(data: Data, seed: int) -> str:
    shown = balanced(data.train, seed)[:SHOWN_EXAMPLES]
    examples = "\n".join(f"Input: {e.prompt}\nOutput: {e.completion}\n" for e in shown)
    labels = ", ".join(data.task.labels[:SHOWN_LABELS])
    return (
        f"A small language model is to do a task. Its instruction now: {data.task.instruction}\n"
        + (f"It answers with one of these labels: {labels}\n" if labels else "")
        + f"Examples of the task:\n\n{examples}\n"
        f"Write {NUM_PROPOSED} better instructions for it, each one to three short sentences that tell what the input "
        'is and what to answer, without examples. Answer with JSON: {"instructions": ["…", …]}'
    )


def _read(text: str) -> list[str]:
    return [line.strip() for line in json_list(text, "instructions") if isinstance(line, str)]
