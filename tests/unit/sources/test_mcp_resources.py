"""The resources of MCP servers as documents: real servers of the SDK."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp")

from mcp.server.lowlevel import Server
from mcp.types import (
    BlobResourceContents,
    ListResourcesResult,
    ReadResourceResult,
    Resource,
    TextResourceContents,
)
from mcp_server import RATES, bank, over_http

from tailorbird.data.documents import Unchanged, Unreadable
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import EndpointError
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.mcp_contents import documents_of, suffix_of
from tailorbird.sources.mcp_resources import mcp_resources_at
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

REAL = f"'{sys.executable}' '{Path(__file__).resolve().parents[2] / 'mcp_server.py'}'"


@pytest.fixture(scope="module")
def remote():
    server = bank()
    for name in ("branches.csv", "broken.pdf", "fees.html"):  # which need a child to be parsed
        server._resource_manager._resources.pop(f"bank://{name}")
    with over_http(server) as (url, _asked):
        yield mcp_resources_at(url, label="bank")


def test_resources_of_every_kind_become_documents_or_are_said():
    connector = mcp_resources_at(REAL)
    found = {item.id: item for item in connector.documents()}
    assert connector.complete
    assert connector.name == f"mcp_resources:{REAL}"
    texts = {name: item.text for name, item in found.items() if isinstance(item, Document)}
    assert texts == {
        "bank://cards.md": "# Lost cards\n\nYou can freeze a lost card in the app. A new one costs five euros.",
        "bank://rates": RATES,
        "bank://fees.html": "A transfer abroad costs two euros.",
        "bank://branches.csv": "| town | street |\n| --- | --- |\n| Utrecht | Oudegracht 1 |",
    }
    assert [found[f"bank://{name}"].title for name in ("cards.md", "rates", "fees.html")] == [
        "Lost cards",
        "Rates of exchange",
        "Fees",
    ]
    reasons = {name: item.reason for name, item in found.items() if isinstance(item, Unreadable)}
    assert set(reasons) == {"bank://logo.png", "bank://broken.pdf", "bank://refused"}
    assert reasons["bank://logo.png"].startswith("is of the kind image/png; expected .txt")
    assert "damaged, cannot be parsed" in reasons["bank://broken.pdf"]
    assert "Error reading resource bank://refused" in reasons["bank://refused"]


def test_it_keeps_the_contract_of_connectors(remote):
    check_connector(remote)
    check_versioned(remote)


def test_what_says_when_it_was_changed_is_not_read_again():
    server = bank()
    with over_http(server) as (url, _asked):
        known = {i.id: i.version for i in mcp_resources_at(url).documents() if isinstance(i, Document)}
        server.seen.clear()
        again = list(mcp_resources_at(url).changes(known))
    assert {item.id for item in again if isinstance(item, Unchanged)} == set(known)
    assert server.seen == ["bank://rates"]
    changed = bank(changed="2026-02-02T00:00:00Z", card="Cards are free.")
    with over_http(changed) as (url, _asked):
        [card] = [item for item in mcp_resources_at(url).changes(known) if isinstance(item, Document)]
    assert card.text == "# Lost cards\n\nCards are free."


def test_an_index_is_filled_and_brought_up_to_date(tmp_path):
    server = bank()
    with over_http(server) as (url, _asked), KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        first = index.sync(mcp_resources_at(url, label="bank"))
        second = index.sync(mcp_resources_at(url, label="bank"))
        assert (first.added, len(first.unreadable)) == (4, 3)
        assert (second.unchanged, second.embedded) == (4, 0)
        assert index.search("freeze card", 1)[0].document == "bank://cards.md"
    fewer = bank()
    fewer._resource_manager._resources.pop("bank://rates")
    with over_http(fewer) as (url, _asked), KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(mcp_resources_at(url, label="bank")).removed == 1


def test_a_server_that_is_away_is_an_error_and_the_index_keeps_what_it_has(tmp_path):
    with over_http(bank()) as (url, _asked), KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(mcp_resources_at(url, label="bank"))
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        with pytest.raises(EndpointError, match="cannot be read"):
            index.sync(mcp_resources_at(url, label="bank", timeout_s=2))
        assert len(index.document_names()) == 4


def contents(*parts):
    with ParserProcess() as parser:
        return list(documents_of("bank://x", parts, parser, "Title"))


def test_several_contents_are_documents_of_their_own():
    found = contents(
        TextResourceContents(uri="bank://x/a", text="first"),
        TextResourceContents(uri="bank://x/a", text="second"),
        TextResourceContents(uri="bank://x", text="third"),
    )
    assert [(d.id, d.text, d.title) for d in found] == [
        ("bank://x/a", "first", "Title"),
        ("bank://x#2", "second", "Title"),
        ("bank://x", "third", "Title"),
    ]


def test_a_child_of_a_folder_that_is_listed_too_is_given_once():
    texts = {"bank://a": "about cards", "bank://b": "about rates"}
    read = []

    async def listed(_context, _params):
        names = ["bank://a", "bank://all", "bank://b"]
        return ListResourcesResult(resources=[Resource(uri=uri, name=uri) for uri in names])

    async def contents_of(_context, params):
        read.append(str(params.uri))
        uris = list(texts) if params.uri == "bank://all" else [params.uri]
        parts = [TextResourceContents(uri=uri, text=texts[uri]) for uri in uris]
        return ReadResourceResult(contents=parts)

    server = Server("bank", on_list_resources=listed, on_read_resource=contents_of)
    with over_http(server) as (url, _asked):
        connector = mcp_resources_at(url, label="bank")
        assert [(d.id, d.text) for d in connector.documents()] == list(texts.items())
        assert connector.complete
        assert read == ["bank://a", "bank://all"]
        check_connector(connector)


def test_contents_that_are_hostile_are_refused():
    with ParserProcess() as parser:
        most = parser.limits.file_bytes
        parts = (
            BlobResourceContents(uri="bank://a", mime_type="text/plain", blob="not base64!"),
            BlobResourceContents(uri="bank://b", mime_type="text/plain", blob="A" * (most * 4 // 3 + 100)),
            BlobResourceContents(uri="bank://c.pdf", mime_type="text/plain", blob="PGh0bWw+"),
            TextResourceContents(uri="bank://d", text=" "),
        )
        found = list(documents_of("bank://x", parts, parser))
    assert all(isinstance(item, Unreadable) for item in found)
    reasons = [item.reason for item in found]
    assert reasons[0].startswith("is no base64")
    assert reasons[1].startswith("larger than")
    assert "its content is plain text" in reasons[2]
    assert reasons[3].startswith("holds no text")


@pytest.mark.parametrize(
    ("uri", "mime", "suffix"),
    [
        ("bank://a/report.pdf", "application/pdf", ".pdf"),
        ("bank://a/report.pdf", "", ".pdf"),
        ("bank://a/code.py", "text/plain", ".py"),
        ("bank://a", "text/markdown; charset=utf-8", ".md"),
        ("bank://a.html", "text/markdown", ".md"),
        ("bank://a", "application/x-unheard-of", ".txt"),
    ],
)
def test_the_kind_is_told_by_type_and_name(uri, mime, suffix):
    assert suffix_of(uri, mime, is_text=True) == suffix
