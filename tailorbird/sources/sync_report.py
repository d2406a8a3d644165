"""What a sync did, and the counts that must come out even."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SyncReport:
    """What a sync did. The first four count documents; `passages` is the index's total afterwards.

    `embedded` counts the texts whose vectors had to be computed, `ruled` the documents that were there and got other
    rules of who may read them. `unreadable` holds the id and the reason of documents that could not be read; what the
    index knew of them before is kept. Of a dry run it is what would be done. `searchable_s` is after how many seconds
    all was found by its words, `seconds` the whole.

    The count that must come out even: the connector listed `listed` documents, of which the index holds all
    but the unreadable ones, and of those `kept` as they were read before; of `passages`, `with_words` can be
    found by words and `with_vectors` by meaning.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    passages: int
    embedded: int
    unreadable: tuple[tuple[str, str], ...] = ()
    documents: int = 0
    listed: int = 0
    kept: int = 0
    with_words: int = 0
    with_vectors: int = 0
    searchable_s: float = 0.0
    seconds: float = 0.0
    dry_run: bool = False
    ruled: int = 0
    stores: tuple[str, ...] = ()
    """What was done to the vector store and the keyword index beside the file, in sentences."""
