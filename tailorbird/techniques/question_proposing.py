"""Questions about documents that a strong model behind an endpoint writes, where nobody has asked any yet.

Nothing is taken on trust: a question is kept only with an answer that its passage holds word for word.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from tailorbird.data.duplicates import near_groups, normalise
from tailorbird.data.question_writing import synthetic_example
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Example, Passage
from tailorbird.techniques.proposing import answered_json, json_list

log = logging.getLogger(__name__)

MOST_LETTERS = 300
"""A longer question, or answer, is not taken."""
LEAST_PASSAGE = 80
"""Characters of a passage that is worth a question."""
SCHEMA = {
    "type": "object",
    "properties": {
        "questions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
                "required": ["question", "answer"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["questions"],
    "additionalProperties": False,
}
_ABOUT_TEXT = re.compile(
    r"\b(?:the|this|given|above) (?:text|passage|document|excerpt|page)\b", re.IGNORECASE
)


def proposed_questions(
    proposer: RemoteWeights, documents: Sequence[Sequence[Passage]], per_document: int
) -> list[Example]:
    """Up to `per_document` questions of each document, as synthetic examples with their answers' places.

    Raises:
        EndpointError: it can't be reached, or refuses.
    """
    found = [e for passages in documents for e in _of_document(proposer, passages, per_document)]
    repeats = {i for group in near_groups([normalise(e.prompt) for e in found]) for i in sorted(group)[1:]}
    return [example for i, example in enumerate(found) if i not in repeats]


def _of_document(proposer: RemoteWeights, passages: Sequence[Passage], most: int) -> Iterator[Example]:
    worth = [p for p in passages if len(p.text) >= LEAST_PASSAGE] or list(passages[:1])
    # The passages that are asked lie evenly over the document.
    count = min(most, len(worth))
    asked = [worth[i * len(worth) // count] for i in range(count)]
    each = -(-most // count) if count else 0
    given = kept = 0
    for passage in asked:
        answers = json_list(answered_json(proposer, _question(passage, each), SCHEMA), "questions")
        given += len(answers)
        for example in _answerable(answers[:each], passage):
            if kept < most:
                kept += 1
                yield example
    if asked and not kept:
        log.warning(
            "%s wrote no usable question about %s (%d given).", proposer.name, asked[0].document, given
        )


def _answerable(answers: Sequence[Any], passage: Passage) -> Iterator[Example]:
    for row in answers:
        fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
        question, answer = fields.get("question"), fields.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            continue
        place = _quoted(answer, passage.text)
        gives_away = normalise(answer) in normalise(question)
        fits = 0 < len(question.strip()) <= MOST_LETTERS and not _ABOUT_TEXT.search(question)
        if place and fits and not gives_away:
            yield synthetic_example(question.strip(), passage.text[slice(*place)], passage, place[0])


def _quoted(answer: str, text: str) -> tuple[int, int] | None:
    """Where an answer stands in a text, word for word; white space and capitals aside."""
    words = answer.split()
    if not words or len(answer) > MOST_LETTERS:
        return None
    found = re.search(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", text, re.IGNORECASE)
    return found.span() if found else None


def _question(passage: Passage, count: int) -> str:
    above = " › ".join(dict.fromkeys(line for line in (passage.title, *passage.headings) if line))
    return (
        f"Below is a piece of a document{f' ({above})' if above else ''}. Write {count} "
        f"question{'s' if count > 1 else ''} that a reader who hasn't seen it might ask and that it answers. Use words "
        "of your own, name what is asked about, and don't mention the text. Each answer is copied from the piece word "
        'for word, and short. Answer with JSON: {"questions": [{"question": "…", "answer": "…"}]}\n\n'
        f"{passage.text}"
    )
