"""Metrics of free answers by their text: ROUGE-L, chrF, BLEU, and the fields of JSON. Each is in [0, 1], 1 is best.

All know refusals: of an unanswerable example a refusal scores 1 and anything else 0, of an answerable one a refusal
scores 0. BLEU and chrF are sacreBLEU's (Post 2018, "A Call for Clarity in Reporting BLEU Scores").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tailorbird.evaluation.answer_forms import compared_texts, is_refusal, is_unanswerable
from tailorbird.records import Completion, Example

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

_WORD = re.compile(r"\w+")


def rouge_l(example: Example, completion: Completion) -> float:
    """ROUGE-L: how much of both texts their longest common subsequence of words holds.

    With LCS of m expected and n given words, R = LCS / m, P = LCS / n, and F = 2PR / (P + R) (Lin 2004, "ROUGE: A
    Package for Automatic Evaluation of Summaries", section 3.1, β = 1). Words are runs of letters and digits in lower
    case, articles included; where either text has none, 1 if both have none, else 0.

    >>> rouge_l(Example.pair("Summarise.", "police killed the gunman"), Completion("police kill the gunman"))
    0.75
    """
    return _knowing_refusals(example, completion, _rouge_l)


def chrf(example: Example, completion: Completion) -> float:
    """chrF: the F-score of runs of 1 to 6 characters, recall counting twice as much as precision.

    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation" (β = 2; case and punctuation count, white
    space doesn't). It needs no words, so it suits languages that write none apart.
    """
    return _knowing_refusals(example, completion, _chrf)


def bleu(example: Example, completion: Completion) -> float:
    """BLEU of one answer: the geometric mean of the precisions of runs of 1 to 4 words, times a brevity penalty.

    Papineni et al. 2002; words as the `13a` tokenizer of WMT cuts them. A single text seldom has a match of every
    length: lengths beyond the answer's own are left out, and counts of 0 are smoothed exponentially (Chen & Cherry
    2014, "A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU", method 3). An answer that shares
    no word scores 0. A mean of these is not the BLEU of a corpus.
    """
    return _knowing_refusals(example, completion, _bleu)


def json_fields(example: Example, completion: Completion) -> float:
    """The F1 of a JSON document's fields: those that the answer has, with equal values, and no others.

    A field is a value that is neither object nor list, with the way to it: `{"a": {"b": [1, 2]}}` has a.b.0 = 1 and
    a.b.1 = 2. Empty objects and lists are fields too. P is the share of the answer's fields that are expected, so
    that extra ones count against it; R the share of the expected ones that the answer has; the score is 2PR / (P + R),
    1 only where both documents are equal. Numbers are equal by value (1 and 1.0), never to a truth value; texts letter
    by letter. An answer that is no JSON scores 0, one fenced in Markdown too: a program could not read it.

    >>> json_fields(Example.pair("Read it.", '{"name": "Ada", "born": 1815}'), Completion('{"name": "Ada"}'))
    0.6666666666666666
    """
    # As they are: a list of numbers looks like a citation.
    return _knowing_refusals(
        example, completion, lambda *_: _json_fields(example.completion, completion.text)
    )


def is_json(text: str) -> bool:
    """Whether a text is one JSON document, spaces around it aside; NaN and infinities are none."""
    return _parsed(text) is not _NOT_JSON


def _knowing_refusals(example: Example, completion: Completion, score: Callable[[str, str], float]) -> float:
    refused = is_refusal(completion.text)
    if is_unanswerable(example):
        return float(refused)
    return 0.0 if refused else score(*compared_texts(example, completion))


def _rouge_l(expected: str, given: str) -> float:
    wanted, found = (_WORD.findall(text.lower()) for text in (expected, given))
    return _f1(longest_common_subsequence(wanted, found), len(wanted), len(found))


def _f1(shared: int, num_wanted: int, num_found: int) -> float:
    """2PR / (P + R) with P = shared / found and R = shared / wanted, which is 2·shared / (found + wanted)."""
    return 2 * shared / (num_found + num_wanted) if num_found + num_wanted else 1.0


def longest_common_subsequence(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """The length of the longest sequence that can be got from both by leaving items out.

    By bits, as many items of `a` at a time as an integer holds (Hyyrö 2004, "Bit-parallel LCS-length computation
    revisited"): a bit is 0 where the length of row and column is one more than that of the column before.

    >>> longest_common_subsequence("police", "polite")
    5
    """
    places: dict[Hashable, int] = {}
    for index, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << index
    every = (1 << len(a)) - 1
    row = every
    for item in b:
        hits = row & places.get(item, 0)
        row = ((row + hits) | (row - hits)) & every
    return len(a) - row.bit_count()


@lru_cache(maxsize=1)
def _chrf_scorer() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@lru_cache(maxsize=1)
def _bleu_scorer() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, smooth_method="exp", tokenize="13a")


def _chrf(expected: str, given: str) -> float:
    return _by_sacrebleu(_chrf_scorer(), expected, given)


def _bleu(expected: str, given: str) -> float:
    return _by_sacrebleu(_bleu_scorer(), expected, given)


def _by_sacrebleu(scorer: BLEU | CHRF, expected: str, given: str) -> float:
    if not expected.strip() or not given.strip():
        return float(expected.strip() == given.strip())
    # Percent, and by rounding a little above 100 where both texts are equal.
    return min(1.0, scorer.sentence_score(given, [expected]).score / 100)


_NOT_JSON = object()


def _json_fields(expected: str, given: str) -> float:
    wanted, found = _parsed(expected), _parsed(given)
    if wanted is _NOT_JSON:
        return float(expected.strip() == given.strip())
    if found is _NOT_JSON:
        return 0.0
    wanted_fields, found_fields = Counter(_fields(wanted)), Counter(_fields(found))
    shared = (wanted_fields & found_fields).total()
    return _f1(shared, wanted_fields.total(), found_fields.total())


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _fields(document: Any) -> list[tuple[tuple[str | int, ...], str, Any]]:
    """Every field as (way, kind, value). The kind keeps 1, True and "1" apart, which Python or text would not."""
    found: list[tuple[tuple[str | int, ...], str, Any]] = []
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while waiting:
        way, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [((*way, name), inner) for name, inner in value.items()]
        elif isinstance(value, list) and value:
            waiting += [((*way, place), inner) for place, inner in enumerate(value)]
        elif isinstance(value, dict | list):
            found.append((way, "empty", "{}" if isinstance(value, dict) else "[]"))
        else:
            kind = "number" if type(value) in (int, float) else type(value).__name__
            found.append((way, kind, value))
    return found
