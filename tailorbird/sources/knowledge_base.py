"""A knowledge base on disk: an index, and from where it is filled.

    NAME/knowledge.json    its connectors, in order, the length of its passages, how they are ranked
    NAME/index.db          the index

It stands wherever a folder of documents may stand, and then is what it was at its last sync.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tailorbird.data.storage import write_atomic
from tailorbird.errors import IntegrityError
from tailorbird.sources.cross_encoder import CrossEncoder
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.late_interaction import LateInteraction
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.reranking import Reranker
from tailorbird.sources.scopes import NO_RULES, Rules
from tailorbird.sources.stores import SearchSettings

RECORD, INDEX = "knowledge.json", "index.db"
FORMAT = 1


@dataclass(frozen=True)
class Origin:
    """From where documents come: a kind of connector, a place it reads, and its settings.

    `name` is the connector's own, by which the index remembers its documents. `rules` are of who may read them and
    what they are chosen by.
    """

    kind: str
    place: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    rules: Rules = NO_RULES


@dataclass(frozen=True)
class KnowledgeBase:
    """What is recorded of a knowledge base.

    `synced` is the time of the last sync, in seconds since 1970, or 0; `search` is how its index is searched.
    """

    folder: Path
    origins: tuple[Origin, ...] = ()
    max_chars: int = 600
    synced: int = 0
    search: SearchSettings = field(default_factory=SearchSettings)
    ranking: Ranking = field(default_factory=Ranking)

    @property
    def name(self) -> str:
        return self.folder.name

    def index(self) -> KnowledgeIndex:
        """Its index; made if there was none."""
        return KnowledgeIndex(
            self.folder / INDEX,
            default_embedder(),
            max_chars=self.max_chars,
            settings=self.search,
            ranking=self.ranking,
            reranker=reranker_of(self.ranking),
        )

    def save(self) -> None:
        """Writes the record."""
        facts = {
            "format": FORMAT,
            "max_chars": self.max_chars,
            "synced": self.synced,
            "ranking": self.ranking.to_json(),
            "origins": [asdict(origin) for origin in self.origins],
            "search": asdict(self.search),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / RECORD, json.dumps(facts, ensure_ascii=False, indent=1).encode())

    def with_origin(self, origin: Origin) -> KnowledgeBase:
        """With one more connector, or with other settings of one that is there."""
        others = tuple(o for o in self.origins if o.name != origin.name)
        return replace(self, origins=(*others, origin))


def is_knowledge_base(folder: Path) -> bool:
    """Whether a folder is one, and not a folder of documents."""
    return (folder / RECORD).is_file()


def read_knowledge_base(folder: Path) -> KnowledgeBase:
    """What was recorded in a folder.

    Raises:
        IntegrityError: the record is damaged, or of another version.
    """
    path = folder / RECORD
    try:
        facts = json.loads(path.read_text("utf-8"))
        _check_format(facts["format"])
        origins = tuple(_origin(origin) for origin in facts["origins"])
        settings = SearchSettings(**facts.get("search", {}))
        ranking = Ranking(**facts.get("ranking", {}))
        return KnowledgeBase(folder, origins, facts["max_chars"], facts["synced"], settings, ranking)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{path}: no record of a knowledge base ({error}). Remove the folder and add its documents again."
        ) from None


def _origin(row: dict[str, Any]) -> Origin:
    found: dict[str, Any] = row.pop("rules", {})
    facts = tuple((name, value) for name, value in found.get("facts", ()))
    rules = Rules(found.get("tenant", ""), tuple(found.get("access", ())), facts)
    return Origin(**row, rules=rules)


def reranker_of(ranking: Ranking) -> Reranker | None:
    """What reads the first passages again; None where nothing does.

    Raises:
        NotFound: the cross-encoder is not there.
        IntegrityError: it can't be loaded.
    """
    if not ranking.rerank:
        return None
    return CrossEncoder(ranking.reranker) if ranking.reranker else LateInteraction(default_embedder())


def _check_format(found: object) -> None:
    if found != FORMAT:
        raise ValueError(f"format {found}, expected {FORMAT}")
