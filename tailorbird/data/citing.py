"""Which words of the evidence an answer rests on, found by comparing the two; no model is asked.

Every sentence of an answer is held against the statements of every passage. What a passage's statement holds of
the sentence's words is its support; a number that stands in none of the evidence tells of an invention and weighs
as much as `NUMBER_WEIGHT` words. A citation quotes the statement that supports most, word for word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from tailorbird.data.passages import statements
from tailorbird.records import MARK, Citation, Completion, Passage

CITED_FROM = 0.5
"""Support from which a statement is cited."""
NUMBER_WEIGHT = 3.0
KNOWN_WEIGHT = 0.25
"""What a word that the question itself holds counts for: to repeat it takes no evidence."""
SMALL_WEIGHT = 0.1
STEM = 5
"""Letters of a word that are compared: `battery` and `batteries` are one."""
_NAMED = re.compile(r"\b(?:passages?|documents?|evidence)\s+\d{1,2}\b", re.IGNORECASE)
"""A passage by its number, which is none of the answer's."""

_LISTED = re.compile(r"^\s*\d{1,2}[.)]\s+(?=\S)", re.MULTILINE)
"""The number of an item in a list, which says nothing."""
_SPELLED = {
    word: str(number)
    for number, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty""".split()  # noqa: SIM905 - a list to read
    )
} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
}
_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+")
_SMALL = frozenset(
    """a about all an and any are as at be been by can could did do does for from had has have he her his how i if in
    into is it its may me my no not of on only or our per she should so than that the their them then there these
    they this to up us was we were what when where which who whom whose why will with would you your answer question
    passage document documents""".split()  # noqa: SIM905 - a list to read
)


@dataclass(frozen=True, slots=True)
class Support:
    """What the evidence holds of an answer.

    `share` in [0, 1] is of all its words, `numbers` of the numbers that the question doesn't hold itself (1 where there
    are none), `near` of the question's words around what is quoted.
    """

    share: float
    numbers: float
    near: float
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement of a passage: from where to where in it, its words and those with the headings above it."""

    number: int
    start: int
    end: int
    words: frozenset[str]
    around: frozenset[str]


def stem(word: str) -> str:
    """What of a word is compared; of a number the digits, without what groups them or ends it for nothing.

    >>> stem("Batteries"), stem("battery"), stem("3,150"), stem("Six"), stem("12.00")
    ('batte', 'batte', '3150', '6', '12')
    """
    if word[0].isdigit():
        return re.sub(r"[.,:](?=\d{3}\b)|[.,:]00$", "", word)
    return _SPELLED.get(word.lower(), word.lower()[:STEM])


def stems(text: str) -> list[str]:
    """The words and numbers of a text as they are compared, in order."""
    return [stem(word) for word in _WORD.findall(text)]


def telling(text: str) -> frozenset[str]:
    """The words that tell what a text is about: without the small ones that stand in every text."""
    return frozenset(stem(w) for w in _WORD.findall(text) if w.lower() not in _SMALL)


def support_for(completion: Completion) -> Support | None:
    """What its evidence holds of a completion; None where it had none, chose of a closed set, or is empty."""
    asked = completion.asked
    if asked is None or not asked.evidence or asked.choices is not None or not completion.text.strip():
        return None
    return support_of(completion.text, asked.question, asked.evidence)


def cited(completion: Completion, support: Support) -> Completion:
    """The completion with what it rests on."""
    return replace(completion, citations=support.citations, support=support.share)


def support_of(answer: str, question: str, evidence: Sequence[Passage]) -> Support:
    """What the evidence holds of an answer to a question, and where.

    Args:
        answer: its sentences are held against the evidence one by one.
        question: whose words in an answer count little.
        evidence: the passages, as they were numbered for the model.
    """
    known = telling(question)
    held = [statement for number, passage in enumerate(evidence, 1) for statement in _held(number, passage)]
    everything = frozenset[str]().union(*(s.around for s in held))
    numbers, citations = list[bool](), list[Citation]()
    whole = weighed = near = 0.0
    plain = _NAMED.sub(_blanks, _LISTED.sub(_blanks, answer))
    for start, end in statements(answer) or [(0, len(answer))]:
        sentence = MARK.sub(" ", plain[start:end])
        weights = _weights(sentence, known)
        total = sum(weights.values())
        if not total:
            continue
        numbers += [word in everything for word in weights if word[0].isdigit() and word not in known]
        best = _best(weights, held, known)
        support = _share(best, weights) if best else 0.0
        whole, weighed = whole + support * total, weighed + total
        near = max(near, len(known & best.around) / max(1, len(known)) if best and support else 0.0)
        right = _cited_by_the_model(answer[start:end], weights, held, known)
        right = [statement for statement in right if _share(statement, weights) >= CITED_FROM]
        if not right and best and support >= CITED_FROM:
            right = [best]
        for statement in right:
            passage = evidence[statement.number - 1]
            citations.append(_citation(statement, passage, answer, (start, end), _share(statement, weights)))
    return Support(
        share=whole / weighed if weighed else 0.0,
        numbers=sum(numbers) / len(numbers) if numbers else 1.0,
        near=near,
        citations=tuple(citations),
    )


def _blanks(found: re.Match[str]) -> str:
    return " " * len(found.group())


def _held(number: int, passage: Passage) -> list[_Statement]:
    above = telling(" ".join([passage.title, *passage.headings]))
    found: list[_Statement] = []
    for span in statements(passage.text):
        start, end = _trimmed(passage.text, *span)
        words = frozenset(stems(passage.text[start:end]))
        if words:
            found.append(_Statement(number, start, end, words, words | above))
    return found


def _weights(sentence: str, known: AbstractSet[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for word in _WORD.findall(sentence):
        short = stem(word)
        if word[0].isdigit():
            weights[short] = KNOWN_WEIGHT if short in known else NUMBER_WEIGHT
        elif word.lower() in _SMALL:
            weights.setdefault(short, SMALL_WEIGHT)
        else:
            weights[short] = KNOWN_WEIGHT if short in known else 1.0
    return weights


def _share(statement: _Statement, weights: dict[str, float]) -> float:
    """The part of the words that a statement holds, with what stands above it."""
    return sum(weights[word] for word in statement.around & weights.keys()) / sum(weights.values())


def _best(
    weights: dict[str, float], held: Sequence[_Statement], known: AbstractSet[str]
) -> _Statement | None:
    """The statement that holds most of the words, and of several the one that speaks most of the question.

    After that the better passage's, then the shorter.
    """

    def merit(statement: _Statement) -> tuple[float, float, int, int, int]:
        own = sum(weights[word] for word in statement.words & weights.keys())
        with_headings = sum(weights[word] for word in statement.around & weights.keys())
        asked = len(known & statement.around)
        return with_headings, own, asked, -statement.number, statement.start - statement.end

    best = max(held, key=merit, default=None)
    return best if best and best.words & weights.keys() else None


def _cited_by_the_model(
    sentence: str, weights: dict[str, float], held: Sequence[_Statement], known: AbstractSet[str]
) -> list[_Statement]:
    """The best statement of each passage that the model named itself, if it is there."""
    numbers = [int(n) for mark in MARK.finditer(sentence) for n in re.findall(r"\d+", mark.group())]
    chosen = (_best(weights, [s for s in held if s.number == n], known) for n in dict.fromkeys(numbers))
    return [statement for statement in chosen if statement]


def _citation(
    statement: _Statement, passage: Passage, answer: str, span: tuple[int, int], support: float
) -> Citation:
    answer_start, answer_end = _trimmed(answer, *span)
    return Citation(
        number=statement.number,
        passage=passage.id,
        document=passage.document,
        quote=passage.text[statement.start : statement.end],
        start=passage.start + statement.start,
        end=passage.start + statement.end,
        answer_start=answer_start,
        answer_end=answer_end,
        support=round(support, 4),
        headings=passage.headings,
        page=passage.page,
        version=passage.version,
    )


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """From where to where, without white space at either end."""
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
