"""Questions written from documents by rule, where nobody has asked any yet.

Each puts a question word where the answer stood in a sentence ("Return postage is how much?"), asks for a table's
cell by its row and column, or for what a term means. All words are the document's own, so such questions are
easier to find by their words than people's are: they tell a broken index from a sound one and settings that differ
much, and never measure (they are marked `synthetic`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tailorbird.data.duplicates import near_groups, normalise
from tailorbird.records import Example, Passage, content_hash

LEAST_WORDS, MOST_WORDS = 4, 32
"""Words of a question: fewer ask for nothing in particular, more are a list run together."""
MOST_ANSWER = 80
"""Characters of an answer."""

_UNITS = (
    "seconds? minutes? hours? days? nights? weeks? months? years? metres? km kilometres? miles? cm mm kg grams? "
    "litres? people persons? pages? points? times? degrees? customers? bikes? items? copies attempts?"
).replace(" ", "|")
_NUMBER = r"\d+(?:[.,]\d+)*"
_WORD_NUMBER = "two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|fifty|ninety"
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_ASKED = (
    (re.compile(rf"[£$€]\s?{_NUMBER}(?:\s(?:million|billion))?"), "how much"),
    (re.compile(rf"{_NUMBER}\s?(?:%|per ?cent)"), "what percentage"),
    (
        re.compile(
            rf"\d{{1,2}} {_MONTH}(?: \d{{4}})?|{_MONTH} \d{{4}}|{_MONTH} \d{{1,2}}(?:, \d{{4}})?(?!\d)"
        ),
        "what date",
    ),
    (re.compile(r"\d{1,2}[:.]\d{2}(?:\s?[ap]\.?m\.?)?|\d{1,2}\s?[ap]m\b"), "what time"),
    (re.compile(rf"(?:{_NUMBER}|(?:{_WORD_NUMBER})) (?P<unit>{_UNITS})\b", re.IGNORECASE), "how many"),
    (re.compile(r"(?<=[iI]n )(?:1[5-9]|20)\d\d\b"), "which year"),
)
"""What an answer looks like, and what is asked for in its place; the first that fits a place is taken."""
_MEANS = re.compile(
    r"^(?:(?:The|A|An) )?(?P<term>[\w'’-]+(?: [\w'’-]+){0,4}) (?P<verb>is|are) (?P<what>(?:an?|the) [^.;:]{12,80})"
)
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])[ \t]+")
_LABELLED = re.compile(r"^\*\*(?P<term>[^*:\n]{3,50}):?\*\*:?\s+(?P<what>[^.;\n]{3,80})")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?!\s|$)[^.!?\n]*)*")
_CLAUSE = re.compile(r"[^,;:()\u2013\u2014]+(?:,(?=\d)[^,;:()\u2013\u2014]*)*")
_MARKS = re.compile(r"[*_`#|]+")
_PRONOUNS = frozenset("it this that these those they he she we you i there here which who what such".split())  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class _Written:
    """A question, its answer, where that begins in the passage, and by which rule."""

    question: str
    answer: str
    start: int
    rule: str


def written_questions(documents: Sequence[Sequence[Passage]], per_document: int) -> list[Example]:
    """Questions about documents, each with its document and where its answer stands.

    The passages of a document take turns, and so do the rules. Of questions that nearly repeat one another one
    is kept, and none that two documents answer.

    Args:
        documents: The passages of each.
        per_document: Questions of each, at most.
    """
    chosen = [example for passages in documents for example in _of_document(passages, per_document)]
    places: dict[str, set[str | None]] = defaultdict(set)
    for example in chosen:
        places[normalise(example.prompt)].add(example.document)
    clear = [example for example in chosen if len(places[normalise(example.prompt)]) == 1]
    repeats = {
        place for group in near_groups([normalise(e.prompt) for e in clear]) for place in sorted(group)[1:]
    }
    return [example for place, example in enumerate(clear) if place not in repeats]


def synthetic_example(question: str, answer: str, passage: Passage, start: int) -> Example:
    """A question that no person asked; the answer begins at `start` in the passage."""
    at = passage.start + start
    return Example.pair(
        question, answer, document=passage.document, span=(at, at + len(answer)), synthetic=True
    )


def _of_document(passages: Sequence[Passage], most: int) -> Iterator[Example]:
    left = [(passage, _by_turns(list(_questions(passage)))) for passage in passages]
    rounds = max((len(found) for _, found in left), default=0)
    taken: set[tuple[int, int]] = set()
    for turn in range(rounds):
        for passage, found in left:
            if turn >= len(found) or len(taken) >= most:
                continue
            written = found[turn]
            place = passage.start + written.start, len(written.answer)
            if place not in taken:
                taken.add(place)
                yield synthetic_example(written.question, written.answer, passage, written.start)


def _by_turns(found: list[_Written]) -> list[_Written]:
    """One of each rule after another; within a rule by a hash, so that no place is preferred."""
    by_rule: dict[str, list[_Written]] = defaultdict(list)
    for written in sorted(found, key=lambda w: content_hash(w.question)):
        by_rule[written.rule].append(written)
    turns = [(i, rule, w) for rule, ws in by_rule.items() for i, w in enumerate(ws)]
    return [w for _, _, w in sorted(turns, key=lambda turn: turn[:2])]


def _questions(passage: Passage) -> Iterator[_Written]:
    at = 0
    rows: list[tuple[int, str]] = []
    for line in passage.text.split("\n"):
        if line.count("|") >= 2:
            rows.append((at, line))
        elif not line.lstrip().startswith(("#", "```")):
            yield from _of_line(line, at)
        at += len(line) + 1
    yield from _of_table(rows, passage.headings)


def _of_line(line: str, at: int) -> Iterator[_Written]:
    mark = _ITEM.match(line)
    body = mark.end() if mark else 0
    if labelled := _LABELLED.match(line[body:]):
        question = f"What is said of {_plain(labelled['term']).lower()}?"
        yield from _fitting(question, labelled["what"], at + body + labelled.start("what"), "label")
    for sentence in _SENTENCE.finditer(line, body):
        text = sentence.group()
        lead = len(text) - len(text.lstrip())
        start = at + sentence.start() + lead
        if (means := _MEANS.match(text[lead:])) and means["term"].split()[0].lower() not in _PRONOUNS:
            verb = "is" if means["verb"] == "is" else "are"
            yield from _fitting(
                f"What {verb} {means['term'].lower()}?", means["what"], start + means.start("what"), "term"
            )
        yield from _in_place(text, at + sentence.start())


def _in_place(sentence: str, at: int) -> Iterator[_Written]:
    """The sentence, or the clause of it that says enough, with a question word where the answer stood."""
    taken: list[tuple[int, int]] = []
    for pattern, asked in _ASKED:
        for found in pattern.finditer(sentence):
            if any(found.start() < end and start < found.end() for start, end in taken):
                continue
            taken.append(found.span())
            begin, end = _clause(sentence, *found.span())
            words = f"{asked} {found['unit']}" if "unit" in pattern.groupindex else asked
            before, after = sentence[begin : found.start()], sentence[found.end() : end]
            question = f"{_plain(before)} {words} {_plain(after)}".strip()
            yield from _fitting(
                question[0].upper() + question[1:] + "?", found.group(), at + found.start(), asked
            )


def _clause(sentence: str, start: int, end: int) -> tuple[int, int]:
    for clause in _CLAUSE.finditer(sentence):
        if clause.start() <= start and end <= clause.end() and len(clause.group().split()) > LEAST_WORDS + 1:
            return clause.span()
    return 0, len(sentence)


def _of_table(rows: list[tuple[int, str]], headings: tuple[str, ...]) -> Iterator[_Written]:
    """Every cell but the first of its row, asked for by its column's and its row's names."""
    cells = [
        [(at + m.start(1), m.group(1)) for m in re.finditer(r"\|?\s*([^|]*?)\s*(?=\||$)", row)]
        for at, row in rows
    ]
    filled = [[cell for cell in row if cell[1].strip(" :-")] for row in cells]
    if len(filled) < 2 or not filled[0]:
        return
    columns = [_plain(name).lower() for _, name in filled[0]]
    for row in filled[1:]:
        if len(row) != len(columns) or len(columns) < 2:
            continue
        about = f" ({headings[-1]})" if headings else ""
        for column, (start, answer) in zip(columns[1:], row[1:], strict=True):
            yield from _fitting(
                f"What is the {column} of {_plain(row[0][1])}{about}?", answer, start, "table"
            )


def _fitting(question: str, answer: str, start: int, rule: str) -> Iterator[_Written]:
    """The question, if it asks for something in particular and doesn't give the answer away."""
    trimmed = answer.strip()
    start += len(answer) - len(answer.lstrip())
    count = len(question.split())
    telling = sum(len(word) > 3 for word in re.findall(r"\w+", question.replace(rule, "")))
    enough = count > 2 if rule in {"term", "label"} else count > LEAST_WORDS and telling > 2
    if not enough or count > MOST_WORDS or not 0 < len(trimmed) <= MOST_ANSWER or "\n" in trimmed:
        return
    if question.split(maxsplit=1)[0].lower() in _PRONOUNS - {"what", "which", "who"}:
        return  # nobody knows what "it" is
    if re.search(rf"(?<!\w){re.escape(trimmed)}(?!\w)", question, re.IGNORECASE):
        return
    yield _Written(" ".join(question.split()), trimmed, start, rule)


def _plain(text: str) -> str:
    """Without marks of layout, nor what is left of an item's number or a closing point."""
    return " ".join(_MARKS.sub(" ", text).split()).strip(" .,;:-")
