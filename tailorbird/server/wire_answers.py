"""Chat completion answers: our records -> OpenAI's JSON, whole and in chunks. Pure: no HTTP, no model.

What OpenAI's format has no place for stands in one more field, `tailorbird`: the probabilities of a
closed set, the passages that the model was shown, and what was left out for want of room.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tailorbird.errors import EndpointError
from tailorbird.records import ABSTAINED, Completion, Passage, Usage, content_hash
from tailorbird.server.response_format import ClosedSet

if TYPE_CHECKING:
    from tailorbird.workbench import OpenModel

OWNER = "tailorbird"
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_OF_AN_ANSWER = ("probabilities", "evidence", "citations", "support", "withheld", "dropped", "valid")


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one answer repeats. `created` in Unix seconds."""

    id: str
    created: int
    model: str
    fingerprint: str
    technique: str

    @classmethod
    def of(cls, opened: OpenModel, id: str, created: int) -> Head:  # noqa: A002 - the wire's word
        """The head of an answer by this model."""
        fingerprint = content_hash([opened.id, opened.model.name, opened.created], 10)
        return cls(id, created, opened.id, f"fp_{fingerprint}", opened.model.name)


def answer_text(completion: Completion, closed_set: ClosedSet | None) -> str:
    """The text to send: what the model said, worded as the client's schema wants it.

    Raises:
        EndpointError: the client asked for a closed set and the model left it.
    """
    if closed_set is not None and completion.text == ABSTAINED and completion.probabilities:
        # An enum that the client gives leaves no room to abstain: the likeliest is said, with its probability.
        return closed_set.worded(
            max(completion.probabilities, key=lambda c: (completion.probabilities or {})[c])
        )
    if closed_set is None:
        return completion.text
    if not completion.valid or completion.text not in closed_set.choices:
        raise EndpointError(
            f"response_format: the model answered {completion.text[:80]!r}, which is none of the "
            f"{len(closed_set.choices)} values of the enum. Its endpoint cannot be bound to a closed set."
        )
    return closed_set.worded(completion.text)


def chat_completion(head: Head, completion: Completion, closed_set: ClosedSet | None) -> dict[str, Any]:
    """A `chat.completion` object."""
    content = answer_text(completion, closed_set)
    message = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": url_citations(completion),
    }
    finish = _finish_reason(completion)
    return {
        **_head(head, "chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage(completion.usage),
        "tailorbird": extension(head, completion),
    }


def role_chunk(head: Head) -> dict[str, Any]:
    """The first chunk of a stream: who speaks."""
    return _chunk(head, {"role": "assistant", "content": ""}, None)


def content_chunk(head: Head, piece: str) -> dict[str, Any]:
    """A piece of the text."""
    return _chunk(head, {"content": piece}, None)


def final_chunk(head: Head, completion: Completion | None) -> dict[str, Any]:
    """Why the text ended, and the record of the answer; nulls where the model's stream left none."""
    cited = [] if completion is None else url_citations(completion)
    delta = {"annotations": cited} if cited else {}
    chunk = _chunk(head, delta, "stop" if completion is None else _finish_reason(completion))
    return {**chunk, "tailorbird": extension(head, completion)}


def usage_chunk(head: Head, completion: Completion | None) -> dict[str, Any]:
    """The chunk without choices that `stream_options.include_usage` asks for; null where it is not known."""
    tokens = None if completion is None else usage(completion.usage)
    return {**_head(head, "chat.completion.chunk"), "choices": [], "usage": tokens}


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(tokens: Usage) -> dict[str, Any]:
    """The tokens of an answer; cached ones were computed once for several requests."""
    return {
        "prompt_tokens": tokens.input_tokens,
        "completion_tokens": tokens.output_tokens,
        "total_tokens": tokens.input_tokens + tokens.output_tokens,
        "prompt_tokens_details": {"cached_tokens": tokens.cached_tokens},
    }


def extension(head: Head, completion: Completion | None) -> dict[str, Any]:
    """The `tailorbird` field; all but the technique is null where there is no record.

    `valid` is False where a closed set was asked of a model that cannot be bound to it and did not keep
    to it. `evidence` are all passages that the model was shown, numbered as it saw them; `citations` quote what in
    them the answer rests on, `support` is how much of it does, and `withheld` what was answered without enough.
    """
    if completion is None:
        unknown = dict.fromkeys(_OF_AN_ANSWER)
        return {"technique": head.technique, **unknown}
    evidence = completion.asked.evidence if completion.asked else ()
    probabilities = completion.probabilities
    return {
        "technique": head.technique,
        "probabilities": None if probabilities is None else dict(probabilities),
        "evidence": [_passage(n, passage) for n, passage in enumerate(evidence, 1)],
        "citations": [{**asdict(c), "headings": list(c.headings)} for c in completion.citations],
        "support": completion.support,
        "withheld": completion.withheld,
        "dropped": list(completion.left_out),
        "valid": completion.valid,
    }


def url_citations(completion: Completion) -> list[dict[str, Any]]:
    """What in the answer rests on a web page, in OpenAI's form."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": citation.answer_start,
                "end_index": citation.answer_end,
                "title": " > ".join(citation.headings),
                "url": citation.document,
            },
        }
        for citation in completion.citations
        if citation.document.startswith(("https://", "http://"))
    ]


def model_object(id: str, created: int) -> dict[str, Any]:  # noqa: A002 - the wire's word
    """A `model` object."""
    return {"id": id, "object": "model", "created": created, "owned_by": OWNER}


def _passage(n: int, passage: Passage) -> dict[str, Any]:
    return {
        "n": n,
        "document": passage.document,
        "title": passage.title,
        "headings": list(passage.headings),
        "start": passage.start,
        "end": passage.end,
        "page": passage.page,
        "score": passage.score,
        "source": passage.source,
        "text": passage.text,
    }


def _finish_reason(completion: Completion) -> str:
    return "length" if completion.finish_reason == "length" else "stop"


def _head(head: Head, kind: str) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
    }


def _chunk(head: Head, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**_head(head, "chat.completion.chunk"), "choices": [choice], "usage": None}
