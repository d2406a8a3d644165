"""Answers as JSON and back, complete: a report can be drawn from a finished run without its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tailorbird.records import (
    Citation,
    Completion,
    Example,
    Message,
    Passage,
    Prior,
    Reader,
    Request,
    Sampling,
    Scope,
    Usage,
)


def completion_to_json(completion: Completion) -> dict[str, Any]:
    """A completion as JSON-like values, with the request that the weights saw."""
    asked, probabilities = completion.asked, completion.probabilities
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "usage": asdict(completion.usage),
        "seconds": completion.seconds,
        "probabilities": None if probabilities is None else dict(probabilities),
        "asked": None if asked is None else request_to_json(asked),
        "dropped": list(completion.dropped),
        "valid": completion.valid,
        "citations": [asdict(citation) for citation in completion.citations],
        "support": completion.support,
        "withheld": completion.withheld,
    }


def completion_from_json(row: Mapping[str, Any]) -> Completion:
    """Reads what `completion_to_json` wrote."""
    return Completion(
        text=row["text"],
        finish_reason=row["finish_reason"],
        usage=Usage(**row["usage"]),
        seconds=row["seconds"],
        probabilities=row["probabilities"],
        asked=None if row["asked"] is None else request_from_json(row["asked"]),
        dropped=tuple(row["dropped"]),
        valid=row["valid"],
        citations=tuple(_citation_from_json(citation) for citation in row.get("citations", ())),
        support=row.get("support"),
        withheld=row.get("withheld"),
    )


def request_to_json(request: Request) -> dict[str, Any]:
    """A request as JSON-like values."""
    return {
        "messages": [asdict(message) for message in request.messages],
        "sampling": asdict(request.sampling),
        "evidence": [asdict(passage) for passage in request.evidence],
        "choices": None if request.choices is None else list(request.choices),
        "example_id": request.example_id,
        "prior": None if request.prior is None else asdict(request.prior),
        "examples": [_example_to_json(example) for example in request.examples],
        "layout": request.layout,
        "prompt_tokens": request.prompt_tokens,
        "abstain_below": request.abstain_below,
        "schema": request.schema,
        "channel": request.channel,
        "lacking": list(request.lacking),
        "only": None if request.only is None else asdict(request.only),
    }


def request_from_json(row: Mapping[str, Any]) -> Request:
    """Reads what `request_to_json` wrote."""
    sampling: dict[str, Any] = {**row["sampling"], "stop": tuple(row["sampling"]["stop"])}
    return Request(
        messages=tuple(Message(**message) for message in row["messages"]),
        sampling=Sampling(**sampling),
        evidence=tuple(_passage_from_json(passage) for passage in row["evidence"]),
        choices=None if row["choices"] is None else tuple(row["choices"]),
        example_id=row["example_id"],
        prior=_prior_from_json(row.get("prior")),
        examples=tuple(_example_from_json(example) for example in row.get("examples", ())),
        layout=row.get("layout", "chat"),
        prompt_tokens=row.get("prompt_tokens"),
        abstain_below=row.get("abstain_below", 0.0),
        schema=row.get("schema"),
        channel=row.get("channel", 0.0),
        lacking=tuple(row.get("lacking", ())),
        only=_scope_from_json(row.get("only")),
    )


def _example_to_json(example: Example) -> dict[str, Any]:
    return {"id": example.id, "messages": example.turns, "completion": example.completion}


def _example_from_json(row: Mapping[str, Any]) -> Example:
    return Example(tuple(Message(*turn) for turn in row["messages"]), row["completion"], id=row["id"])


def _scope_from_json(row: Mapping[str, Any] | None) -> Scope | None:
    if row is None:
        return None
    reader = row["reader"] and Reader(row["reader"]["tenant"], tuple(row["reader"]["groups"]))
    return Scope(reader, tuple((name, value) for name, value in row["facts"]), row["documents"])


def _prior_from_json(row: Mapping[str, Any] | None) -> Prior | None:
    return None if row is None else Prior(tuple(row["log_weights"]), row["trust"])


def _citation_from_json(row: Mapping[str, Any]) -> Citation:
    values: dict[str, Any] = {**row, "headings": tuple(row["headings"])}
    return Citation(**values)


def _passage_from_json(row: Mapping[str, Any]) -> Passage:
    values: dict[str, Any] = {**row, "headings": tuple(row["headings"])}
    return Passage(**values)
