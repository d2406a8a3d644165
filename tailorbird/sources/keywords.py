"""A question as a search for its words."""

from __future__ import annotations

import re

MAX_TERMS = 64
"""Distinct words of a question that are looked up; those of a very long one beyond that are not."""

_STOP_WORDS = """
    a about an and are as at be but by can could did do does for from had has have he her his how i if
    in is it its me my no not of on or our she should so than that the their them then there these they
    this to us was we were what when where which who why will with would you your
"""

STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words that stand in every text and tell nothing; leaving them out halves the time of a search."""


def telling_words(query: str) -> list[str]:
    """The distinct words of a text in small letters, without stop words unless there is nothing else.

    >>> telling_words('Is the "card" lost? OR (NEAR')
    ['card', 'lost', 'near']
    """
    terms = dict.fromkeys(re.findall(r"[^\W_]+", query.lower()))
    return ([term for term in terms if term not in STOP_WORDS] or list(terms))[:MAX_TERMS]


def match_any(query: str) -> str:
    """A text as an FTS5 expression that finds any of its words; whatever the text, it is well-formed.

    Stop words are left out, unless there is nothing else. Empty if the text has no words.

    >>> match_any('Is the "card" lost? OR (NEAR')
    '"card" OR "lost" OR "near"'
    """
    return " OR ".join(f'"{term}"' for term in telling_words(query))
