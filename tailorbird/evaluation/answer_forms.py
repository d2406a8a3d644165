"""The forms in which answers are compared: normalised as SQuAD does it, refusals told apart, citations left out.

Free answers are normalised as by the official script v1.1 of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250): lower
case, no punctuation, no articles, single spaces. Examples whose completion is `NOT_IN_DOCUMENTS` are unanswerable, as
in SQuAD 2.0 (Rajpurkar et al. 2018, arXiv:1806.03822): there only a refusal is right.
"""

from __future__ import annotations

import re
import string

from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example, uncited

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """SQuAD's normal form of an answer.

    >>> normalise("The  Eiffel Tower!")
    'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def is_refusal(text: str) -> bool:
    """True where an answer says, first of all, that the documents do not hold it.

    >>> is_refusal("Not in the documents, I am afraid")
    True
    """
    refusal = normalise(NOT_IN_DOCUMENTS)
    normal = normalise(text)
    return normal == refusal or normal.startswith(refusal + " ")


def is_unanswerable(example: Example) -> bool:
    """True where the right answer of an example is a refusal."""
    return expects_refusal(example.completion)


def expects_refusal(completion: str) -> bool:
    """True of the completion of an unanswerable example."""
    return normalise(completion) == normalise(NOT_IN_DOCUMENTS)


def compared_texts(example: Example, completion: Completion) -> tuple[str, str]:
    """The expected and the given answer, without citations where there were numbered passages to cite."""
    texts = example.completion, completion.text
    cites = bool(completion.asked and completion.asked.evidence)
    expected, given = (uncited(text) if cites else text for text in texts)
    return expected, given
