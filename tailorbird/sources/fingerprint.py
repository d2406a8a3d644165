"""A hash of all that an index holds, computed piece by piece."""

from __future__ import annotations

import hashlib
import json
import sqlite3

from tailorbird.sources.scopes import OPEN


def fingerprint_of(connection: sqlite3.Connection, embedder: str) -> str:
    """What `content_hash` makes of the embedder's name, all passages, and the rules of those that have any."""
    digest = hashlib.blake2b(digest_size=32)
    digest.update(f"[{_plain(embedder)},[".encode())
    # Without the row numbers, which tell only in what order documents came.
    for number, row in enumerate(connection.execute("SELECT * FROM passages ORDER BY id")):
        digest.update(f"{',' if number else ''}{_plain(row[1:])}".encode())
    digest.update(b"]")
    terms = connection.execute(
        "SELECT document, term FROM document_terms WHERE term != ? UNION ALL "
        "SELECT id, NULL FROM documents WHERE id NOT IN (SELECT document FROM document_terms) ORDER BY 1, 2",
        (OPEN,),
    )
    for row in terms:
        digest.update(f",{_plain(row)}".encode())
    digest.update(b"]")
    return digest.hexdigest()[:32]


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
