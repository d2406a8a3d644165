"""Rows of a real PostgreSQL as documents: streamed, only changed ones read, and nothing written."""

import time

import pytest
from postgres import postgres

from tailorbird.errors import EndpointError, RecipeError
from tailorbird.sources.database_rows import Selection
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.sql import sql_at
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_ROWS = 20_000
TABLES = f"""
CREATE SCHEMA shop;
CREATE TABLE shop.articles (id integer PRIMARY KEY, name text, body text, price numeric, changed timestamptz);
INSERT INTO shop.articles SELECT n, 'Article ' || n, 'Text of the article number ' || n, n / 4.0,
    timestamptz '2026-01-01' + n * interval '1 minute' FROM generate_series(1, {NUM_ROWS}) n;
CREATE FUNCTION shop.adds() RETURNS text AS
    'INSERT INTO shop.articles VALUES (0, ''x'', ''x'', 0, now()) RETURNING body' LANGUAGE sql;
CREATE ROLE reader LOGIN PASSWORD 's3cret';
GRANT ALL ON SCHEMA shop TO reader;
GRANT ALL ON ALL TABLES IN SCHEMA shop TO reader;
"""


@pytest.fixture(scope="module")
def server():
    with postgres(TABLES) as server:
        yield server


@pytest.fixture
def place(server, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "s3cret")
    return f"postgresql+psycopg://reader@127.0.0.1:{server.port}/postgres"


COLUMNS = {"id": "id", "text": "body", "title": "name", "password_env": "SHOP_PASSWORD"}


def test_rows_keep_the_contract(place):
    few = "SELECT * FROM shop.articles WHERE id <= 50 AND name <> '12:30 %' AND price::text <> ':x'"
    plain = sql_at(place, query=few, label="articles", **COLUMNS)
    check_connector(plain)
    versioned = sql_at(place, query=few, label="articles", version="changed", **COLUMNS)
    check_versioned(versioned)
    first = next(versioned.documents())
    assert (first.id, first.title, first.text) == ("articles/1", "Article 1", "Text of the article number 1")
    assert first.version.startswith("2026-01-0")


@pytest.mark.parametrize("one_by_one", [0, 1_000], ids=["whole", "one by one"])
def test_a_table_is_read_and_read_again_where_it_changed(server, place, tmp_path, monkeypatch, one_by_one):
    monkeypatch.setattr("tailorbird.sources.sql.ONE_BY_ONE", one_by_one)
    connector = sql_at(place, table="shop.articles", label="articles", version="changed", **COLUMNS)
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(connector).added == NUM_ROWS
        server.sql("UPDATE shop.articles SET body = 'Another text', changed = now() WHERE id IN (5, 70)")
        report = index.sync(connector)
        assert (report.changed, report.unchanged, report.removed) == (2, NUM_ROWS - 2, 0)
        assert index.keyword_search("another")[0].document in {"articles/5", "articles/70"}


def test_nothing_can_be_written_even_by_a_function(server, place):
    connector = sql_at(place, query="SELECT 1 AS id, shop.adds() AS body, '' AS name", label="x", **COLUMNS)
    with pytest.raises(EndpointError, match="cannot execute INSERT in a read-only transaction"):
        list(connector.documents())
    object.__setattr__(
        connector, "selection", Selection(query="SELECT 1) AS q; DELETE FROM shop.articles; --")
    )
    with pytest.raises((EndpointError, RecipeError)):
        list(connector.documents())
    assert str(NUM_ROWS) in server.sql("SELECT count(*) FROM shop.articles")


def test_what_takes_too_long_is_ended(place):
    slow = "SELECT 1 AS id, pg_sleep(60)::text AS body, '' AS name"
    begin = time.monotonic()
    with pytest.raises(EndpointError, match=r"took longer than 1 s\. Give the table an index"):
        list(sql_at(place, query=slow, label="x", timeout_s=1, **COLUMNS).documents())
    assert time.monotonic() - begin < 30


def test_a_wrong_password_a_missing_table_and_a_missing_column_are_said(place, monkeypatch):
    with pytest.raises(RecipeError, match=r'relation "nope" does not exist.*Check the query and the columns'):
        list(sql_at(place, table="nope", **COLUMNS).documents())
    with pytest.raises(RecipeError, match=r"column q\.bdy does not exist"):
        list(sql_at(place, table="shop.articles", **{**COLUMNS, "text": "bdy"}).documents())
    monkeypatch.setenv("SHOP_PASSWORD", "wr0ng")
    with pytest.raises(EndpointError, match="password authentication failed") as caught:
        list(sql_at(place, table="shop.articles", **COLUMNS).documents())
    assert "wr0ng" not in str(caught.value)
