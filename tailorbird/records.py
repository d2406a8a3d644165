"""The records that travel between the layers: frozen, plain, standard library only."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "choice"]
Layout = Literal["chat", "plain"]
LAYOUTS: tuple[Layout, ...] = ("chat", "plain")
"""How a conversation becomes one text: in the model's own chat template, or plainly, input and output in turn."""

NOT_IN_DOCUMENTS = "Not in the documents."
"""The answer of a model that found no evidence, and the completion of an unanswerable example."""
MARK = re.compile(r"(?:[ \t]+|(?<![\w\])]))(?:\[\d{1,2}(?:\s*,\s*\d{1,2})*\])+(?!\()")
"""Citations that a model wrote itself: [2], [1, 3] or [1][3] behind a blank or a stop; no list's index and no link."""
ABSTAINED = "(unsure)"
"""The answer of a model that is less sure of its label than it is asked to be."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn.

    `temperature` 0 is greedy; `top_p` in (0, 1]; `max_tokens` ≥ 1 counts the answer's tokens;
    `stop` are texts that end the answer and are not part of it.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, as stored, found and cited.

    `document` is the document's id (its path inside the folder); `start` and `end` are character
    offsets into the document's text; `score` is set by the search that found it (higher is better).
    `source` names the live source that it came from; empty for the index of documents.
    """

    id: str
    document: str
    text: str
    title: str = ""
    headings: tuple[str, ...] = ()
    start: int = 0
    end: int = 0
    page: int | None = None
    version: str = ""
    score: float = 0.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name: `id` is stable (a path, a URL), `version` a hash of what was read."""

    id: str
    text: str
    title: str = ""
    version: str = ""
    page_starts: tuple[int, ...] = ()
    """Character offset at which each page begins; empty where the format has no pages."""
    tenant: str = ""
    """Whose it is; another tenant's readers never see it."""
    access: tuple[str, ...] = ()
    """The groups that may read it; empty: everyone of its tenant."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values to choose documents by; a name may have several values."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks: one of a tenant's, and in these groups."""

    tenant: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What part of the knowledge a question may be answered from.

    `reader` is who asks, None the owner, who may read everything. `facts` are names and values: a document must have
    one of the values given of each name. `documents` is a pattern that a document's id must match, with `*`, `?` and
    `[…]`; empty for any.
    """

    reader: Reader | None = None
    facts: tuple[tuple[str, str], ...] = ()
    documents: str = ""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a closed set's answers apart from what the model makes of the request.

    The two are multiplied: a choice's probability is in proportion to p^`trust` · e^w, p being the model's own
    and w the choice's in `log_weights`, which are finite and in the order of the choices. A `trust` in (0, 1)
    makes the model less sure of itself, one above 1 surer.
    """

    log_weights: tuple[float, ...]
    trust: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked.

    `evidence` and `examples` stand apart from the messages so that the chat template can put them before
    the last user message, and leave out what there is no room for: evidence but the best passage, then
    examples from the first on, then that passage. `evidence` is best first; of `examples` the last is the
    most telling. `choices`, if given, is the closed set of answers, and `prior` what is known of them
    beforehand; where the likeliest one's probability is below `abstain_below`, the answer is `ABSTAINED`.
    `channel`, where it is above 0, multiplies that with p(message | choice), to this power: see `noisy_channel`.
    `schema` is a JSON schema, as JSON, that a free answer is to be a valid document of.
    `layout` says how the whole becomes one text, and `prompt_tokens` how many tokens that may have, None
    leaving it to the model's context. `lacking` says which sources of evidence could not be asked, and why.
    `example_id` names the training or test example that the request was made from, so that a
    wrapper never shows an example to itself.
    `only` is what part of the knowledge may answer it; None is all.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    evidence: tuple[Passage, ...] = ()
    choices: tuple[str, ...] | None = None
    example_id: str | None = None
    prior: Prior | None = None
    examples: tuple[Example, ...] = ()
    layout: Layout = "chat"
    prompt_tokens: int | None = None
    abstain_below: float = 0.0
    schema: str | None = None
    channel: float = 0.0
    lacking: tuple[str, ...] = ()
    only: Scope | None = None

    @property
    def question(self) -> str:
        """The text of the last user message; empty if there is none."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    def with_evidence(self, evidence: tuple[Passage, ...]) -> Request:
        """The same request with other evidence."""
        return replace(self, evidence=evidence)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages with the examples, as turns, before the last user message."""
        if not self.examples:
            return self.messages
        users = [i for i, m in enumerate(self.messages) if m.role == "user"]
        last = users[-1] if users else len(self.messages)
        return (*self.messages[:last], *(t for e in self.examples for t in e.exchange), *self.messages[last:])


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer; `cached_tokens` of the input were computed once for several requests."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """Where in a document an answer, or a sentence of it, has its words from.

    `number` is the passage's as the model saw it, from 1. `quote` are the document's own words, which stand at
    `start` to `end` of its text in the version `version`. They speak for the answer's text from `answer_start`
    to `answer_end`: `support` in (0, 1] is the part of its words that they hold.
    """

    number: int
    passage: str
    document: str
    quote: str
    start: int
    end: int
    answer_start: int
    answer_end: int
    support: float
    headings: tuple[str, ...] = ()
    page: int | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer and how it came about.

    `probabilities` maps every choice to its probability where the request was a closed set.
    `seconds` is this request's share of the wall-clock time. `asked` is the request exactly as the
    weights saw it, after every wrapper and after trimming; `dropped` lists what trimming left out.
    `valid` is False where a closed set was asked of a model that cannot be bound to it and its
    words named none of the choices.
    `support` in [0, 1] is the part of the answer's words that its evidence holds, None where there was none, and
    `citations` say where. `withheld` is what the weights had answered, where that was held to have too little
    ground and `text` says so instead.
    """

    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    seconds: float = 0.0
    probabilities: Mapping[str, float] | None = None
    asked: Request | None = None
    dropped: tuple[str, ...] = ()
    valid: bool = True
    citations: tuple[Citation, ...] = ()
    support: float | None = None
    withheld: str | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Everything that the answer had to do without: sources that failed, and what trimming left out."""
        return (*(self.asked.lacking if self.asked else ()), *self.dropped)

    @property
    def cited_text(self) -> str:
        """The text with the numbers of the passages behind what they speak for.

        Numbers that a model wrote itself stand there only where they are right.

        >>> two = Citation(2, "p", "d.md", "two days", 0, 8, 0, 13, 1.0)
        >>> Completion("Two days [1]. Or nine [4].", citations=(two,)).cited_text
        'Two days. [2] Or nine.'
        """
        if not self.citations and not (self.asked and self.asked.evidence):
            return self.text
        parts, at = list[str](), 0
        for start, end in sorted({(c.answer_start, c.answer_end) for c in self.citations}):
            marks = "".join(dict.fromkeys(f"[{c.number}]" for c in self.citations if c.answer_end == end))
            parts += [uncited(self.text[at:start]), f"{uncited(self.text[start:end])} {marks}"]
            at = end
        return "".join([*parts, uncited(self.text[at:])])


def uncited(text: str) -> str:
    """The text without the citations that a model wrote into it; what only looks alike stays.

    >>> uncited("Two days [1], or three [2, 3]."), uncited("argv[1] or [1](page)")
    ('Two days, or three.', 'argv[1] or [1](page)')
    """
    return MARK.sub("", text)


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled example: what comes in, what should come out.

    `messages` end with a user message. `document` names the document that holds the answer, where
    the data says so. `file` and `line` say where it was read; where a file has rows and not lines
    (a JSON array, Parquet), `line` is the row's number. `weight` ≥ 0 scales its part in the loss.
    `rejected` is an answer that should not come, where the data prefers `completion` to it. `span` says
    where in its document the answer stands, as character offsets of its start and end. `synthetic` ones
    were written by a program and never measure anything: they stay in train.
    """

    messages: tuple[Message, ...]
    completion: str
    document: str | None = None
    file: str = ""
    line: int = 0
    id: str = field(default="")
    weight: float = 1.0
    rejected: str | None = None
    span: tuple[int, int] | None = None
    synthetic: bool = False

    def __post_init__(self) -> None:
        if not self.id:
            usual = self.weight == 1 and self.rejected is None
            rest = [] if usual else [float(self.weight), self.rejected]
            object.__setattr__(self, "id", content_hash([self.turns, self.completion, *rest]))

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return self.messages[-1].content

    @property
    def exchange(self) -> tuple[Message, ...]:
        """The messages but the system's, and the completion as the assistant's: how an example is shown."""
        said = (m for m in self.messages if m.role != "system")
        return (*said, Message("assistant", self.completion))

    @property
    def instruction(self) -> str | None:
        """The system message, which tells examples of several tasks apart; None if there is none."""
        return next((m.content for m in self.messages if m.role == "system"), None)

    @property
    def turns(self) -> list[list[str]]:
        """The messages as plain lists, for hashing and JSON."""
        return [[m.role, m.content] for m in self.messages]

    @classmethod
    def pair(cls, prompt: str, completion: str, **rest: Any) -> Example:
        """An example of one user message and its completion."""
        return cls((Message("user", prompt),), completion, **rest)


def content_hash(value: Any, length: int = 16) -> str:
    """A hash of any JSON-like value, the same on every machine: blake2b, `length` hex digits."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:length]
