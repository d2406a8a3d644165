"""Instructions that a strong model behind an endpoint proposes, for the race on dev to try.

What it is told: the task's labels, some examples spread over them, and the present instruction (as in Zhou et al.
2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv 2211.01910). Nothing is taken on trust.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace

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


def endpoint(reference: str, key_env: str) -> RemoteWeights:
    """The model that proposes: `URL#model`.

    Raises:
        RecipeError: it is no endpoint.
    """
    url, mark, model = reference.partition("#")
    if "://" not in url or not mark or not model:
        raise RecipeError(f"few_shot: proposer is {reference!r}; expected an endpoint's model, URL#model.")
    return RemoteWeights(url, model, key_env)


def proposed_instructions(proposer: RemoteWeights, data: Data, seed: int) -> tuple[str, ...]:
    """Up to `NUM_PROPOSED` instructions; none, and a warning, where the endpoint gives nothing usable.

    Raises:
        EndpointError: it can't be reached, or refuses.
    """
    request = Request(
        (Message("user", _question(data, seed)),), Sampling(max_tokens=1024), schema=json.dumps(SCHEMA)
    )
    try:
        text = proposer.answer([request])[0].text
    except EndpointError as error:
        if error.status not in (400, 404, 415, 422, 501):
            raise
        text = proposer.answer([replace(request, schema=None)])[0].text  # it knows no schemas
    found = [line for line in dict.fromkeys(_read(text)) if 0 < len(line) <= MOST_LETTERS]
    if not found:
        log.warning("few_shot: %s proposed no usable instruction: %r.", proposer.name, text[:80])
    return tuple(found[:NUM_PROPOSED])


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
    """The texts of a JSON answer, whatever stands around it."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1])["instructions"]
    except (ValueError, KeyError, TypeError):
        return []
    return [line.strip() for line in found if isinstance(line, str)] if isinstance(found, list) else []
