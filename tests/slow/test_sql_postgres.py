"""Questions to a real PostgreSQL: found by its own search, in a transaction that can write nothing, within a time."""

import time

import pytest
from postgres import postgres

from tailorbird.errors import EndpointError
from tailorbird.sources.sql_question import SqlQuery
from tailorbird.testing.sources import check_source

pytestmark = pytest.mark.slow

FOUND = (
    "SELECT id, title, body AS text, ts_rank(to_tsvector('english', body), to_tsquery('english', :words)) AS score "
    "FROM pages WHERE to_tsvector('english', body) @@ to_tsquery('english', :words) ORDER BY score DESC LIMIT :k"
)
TABLES = """
CREATE TABLE pages (id integer PRIMARY KEY, title text, body text);
INSERT INTO pages VALUES (1, 'Cards', 'Freeze a lost card in the app.'), (2, 'Rates', 'Rates change at noon.');
CREATE FUNCTION adds(text) RETURNS text AS 'INSERT INTO pages VALUES (9, $1, $1) RETURNING body' LANGUAGE sql;
CREATE ROLE reader LOGIN PASSWORD 'hunter2'; GRANT ALL ON ALL TABLES IN SCHEMA public TO reader;
"""


@pytest.fixture(scope="module")
def database():
    with postgres(TABLES) as server:
        yield f"postgresql+psycopg://reader:$SHOP_PASSWORD@127.0.0.1:{server.port}/postgres"


@pytest.fixture(autouse=True)
def password(monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")


def test_a_question_is_answered_by_the_databases_own_search(database):
    [found] = SqlQuery(database, FOUND, words="tsquery").search("Is my card lost?", 3)
    assert (found.document, found.title, found.text) == (
        "postgres#1",
        "Cards",
        "Freeze a lost card in the app.",
    )
    check_source(SqlQuery(database, FOUND, words="tsquery"), ["lost card"])


def test_nothing_is_written_even_by_a_function_that_would(database):
    with pytest.raises(EndpointError, match="read-only transaction") as caught:
        SqlQuery(database, "SELECT adds(:query) AS text").search("card", 1)
    assert "hunter2" not in str(caught.value)
    [count] = SqlQuery(database, "SELECT count(*)::text AS text FROM pages WHERE :query <> ''").search(
        "card", 1
    )
    assert count.text == "2"


def test_a_query_that_takes_too_long_is_ended_by_the_server(database):
    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"took longer than 0\.5 s"):
        SqlQuery(database, "SELECT pg_sleep(60)::text || :query AS text", timeout_s=0.5).search("card", 1)
    assert time.monotonic() - began < 30
    busy = (
        "SELECT count(*)::text AS text FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
        "AND usename = 'reader' AND :query <> ''"
    )
    [count] = SqlQuery(database, busy).search("card", 1)
    assert count.text == "0"


def test_a_wrong_password_is_an_error_without_it(database, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "wr@ng:secret/")
    with pytest.raises(EndpointError, match="password authentication failed") as caught:
        SqlQuery(database, FOUND, words="tsquery").search("card", 1)
    assert "secret" not in str(caught.value)
