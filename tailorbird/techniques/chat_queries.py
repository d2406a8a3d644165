"""What to look up for a question that goes on with a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tailorbird.data.citing import telling
from tailorbird.records import NOT_IN_DOCUMENTS, Message

FEW_WORDS = 3
"""Telling words up to which a question with a pronoun is taken to lean on what was said; with one less any may."""
LONG_ANSWER = 300
"""Characters up to which the last answer is looked up too: a short one names what was asked for."""

_PRONOUN = re.compile(
    r"\b(it|its|they|them|their|theirs|he|him|his|she|her|hers|those|these|one|ones)\b", re.IGNORECASE
)
_GOES_ON = re.compile(r"\s*(and|but|or|so|also|what about|how about|what if)\b", re.IGNORECASE)


def search_queries(messages: Sequence[Message]) -> list[str]:
    r"""What to search for.

    A question that names all it is about stands alone. One that goes on ("And …", "What about …"), or has a pronoun and
    few other words, is looked up behind the question before, and behind that with its answer. One that may do either,
    with a pronoun and many words or with very few, is looked up alone, too.

    >>> turns = [Message("user", "Which van is electric?"), Message("assistant", "The Dunnock.")]
    >>> search_queries([*turns, Message("user", "How many seats has it?")])
    ['Which van is electric?\nHow many seats has it?', 'Which van is electric?\nThe Dunnock.\nHow many seats has it?']
    """
    turns = [m for m in messages if m.role != "system"]
    question = next((m.content for m in reversed(turns) if m.role == "user"), "")
    before = turns[: next((i for i in reversed(range(len(turns))) if turns[i].role == "user"), 0)]
    asked = next((m.content for m in reversed(before) if m.role == "user"), "")
    if not asked.strip() or not question.strip():
        return [question]
    pronoun, telling_words = bool(_PRONOUN.search(question)), len(telling(question))
    leans = leans_on_what_was_said(question)
    if not leans and not pronoun and telling_words >= FEW_WORDS:
        return [question]
    answer = before[-1].content if before[-1].role == "assistant" else ""
    told = bool(answer.strip()) and len(answer) <= LONG_ANSWER and not answer.startswith(NOT_IN_DOCUMENTS)
    behind = [f"{asked}\n{question}", *([f"{asked}\n{answer}\n{question}"] if told else [])]
    return behind if leans else [question, *behind]


def leans_on_what_was_said(question: str) -> bool:
    """Whether a question means little without what was said before.

    >>> leans_on_what_was_said("And how long?"), leans_on_what_was_said("Who reads the roll if Petra isn't there?")
    (True, False)
    """
    few = len(telling(question)) <= FEW_WORDS
    return bool(_GOES_ON.match(question) or (few and _PRONOUN.search(question)))
