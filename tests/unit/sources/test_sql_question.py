"""Databases asked live by a SELECT: real SQLite files, by the standard library and by SQLAlchemy."""

import sqlite3
import time
from contextlib import closing

import pytest

from tailorbird.errors import EndpointError, NotFound, RecipeError, Unsupported
from tailorbird.sources.sql_question import SqlQuery
from tailorbird.sources.sql_statement import bound_names, check_reads_only
from tailorbird.testing.sources import check_source

ROWS = [
    (1, "Cards", "Freeze a lost card in the app."),
    (2, "Rates", "Exchange rates change every day at noon."),
    (3, "Empty", ""),
    (4, "Fees", "A lost card costs five euros."),
]
FTS = (
    "SELECT pages.id, pages.title, pages.body AS text, -bm25(found) AS score FROM found JOIN pages "
    "ON pages.id = found.rowid WHERE found MATCH :words ORDER BY rank LIMIT :k"
)
LIKE = "SELECT id, title, body AS text FROM pages WHERE body LIKE :words ORDER BY id LIMIT :k"
ENDLESS = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS text FROM n WHERE x = :query"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, title TEXT, body TEXT)")
        database.executemany("INSERT INTO pages VALUES (?, ?, ?)", ROWS)
        database.execute(
            "CREATE VIRTUAL TABLE found USING fts5(title, body, content='pages', content_rowid='id')"
        )
        database.execute("INSERT INTO found (found) VALUES ('rebuild')")
    return path


@pytest.fixture(params=["sqlite3", "sqlalchemy"])
def database(request, file):
    """The same file, by both ways of reading."""
    if request.param == "sqlite3":
        return str(file)
    pytest.importorskip("sqlalchemy")
    return f"sqlite+pysqlite:///{file}"


def test_rows_come_as_passages(database):
    first, second = SqlQuery(database, FTS).search("Is my card lost?", 3)
    assert {first.document, second.document} == {"shop.db#1", "shop.db#4"}
    assert {first.title, second.title} == {"Cards", "Fees"}
    assert "Freeze a lost card in the app." in {first.text, second.text}
    assert len(SqlQuery(database, FTS).search("card", 1)) == 1


def test_it_keeps_the_contract_of_sources(database):
    check_source(SqlQuery(database, FTS), ["lost card"])


def test_a_pattern_for_like_and_the_bare_question(database):
    assert [p.document for p in SqlQuery(database, LIKE, words="like").search("the exchange", 3)] == [
        "shop.db#2"
    ]
    said = SqlQuery(database, "SELECT 'you said ' || :query AS TEXT").search("'; DROP TABLE pages; --", 3)
    assert [p.text for p in said] == ["you said '; DROP TABLE pages; --"]


def test_a_score_orders_the_rows(database):
    query = "SELECT body AS text, id AS score, id FROM pages WHERE body <> '' AND :query <> ''"
    assert [p.document for p in SqlQuery(database, query).search("zebra", 2)] == ["shop.db#4", "shop.db#2"]


def test_nothing_is_asked_without_words(database):
    assert SqlQuery(database, FTS).search(" ?! ", 3) == SqlQuery(database, FTS).search("card", 0) == []


def test_a_query_without_end_is_cut_off(database):
    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"took longer than 0.3 s. Give the table an index"):
        SqlQuery(database, ENDLESS, timeout_s=0.3).search("card", 1)
    assert time.monotonic() - began < 10


def test_an_error_of_the_database_names_neither_statement_nor_values(database):
    with pytest.raises(EndpointError, match="no such table: nowhere") as caught:
        SqlQuery(database, "SELECT text FROM nowhere WHERE text = :query").search("my secret", 1)
    assert "secret" not in str(caught.value)
    with pytest.raises(
        EndpointError, match=r"gives the columns body, and no `text`. Name it so: SELECT body AS text"
    ):
        SqlQuery(database, "SELECT body FROM pages WHERE :query <> ''").search("card", 1)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT load_extension('/tmp/x.so') || :query AS text",
        "SELECT name || :query AS text FROM pragma_database_list",
    ],
)
def test_what_reaches_beyond_the_file_is_refused(database, query):
    with pytest.raises(EndpointError, match="sql_query"):
        SqlQuery(database, query).search("card", 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pages SET body = :query",
        "DELETE FROM pages WHERE body = :query",
        "INSERT INTO pages (body) VALUES (:query)",
        "SELECT :query AS text; DROP TABLE pages",
        "WITH gone AS (DELETE FROM pages RETURNING body) SELECT body AS text FROM gone WHERE :query <> ''",
        "SELECT body INTO other FROM pages WHERE body = :query",
        "PRAGMA query_only = :query",
        "ATTACH 'x.db' AS :query",
        "/* SELECT */ DROP TABLE pages -- :query",
        "(SELECT :query AS text)",
        "",
        "-- SELECT :query",
    ],
)
def test_only_one_select_is_taken(statement):
    with pytest.raises(RecipeError, match=r"sql_query: the query .*\. Expected one SELECT that only reads"):
        SqlQuery("shop.db", statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'drop; table' AS text, \"update\" FROM [delete] WHERE `set` = :query;",
        "with t as (select 1) -- insert;\nselect * from t where /* drop */ 1 = :query",
        "SELECT updated_at, replace(a, 'b', 'c') AS text FROM t WHERE created = :query",
    ],
)
def test_words_in_quotes_and_comments_are_no_statements(statement):
    check_reads_only(statement, "test")


def test_values_are_found_where_they_are_bound():
    assert bound_names("SELECT :query, ':k', a::text, \":words\" -- :x\n FROM t WHERE b = :words") == {
        "query",
        "words",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"query": "SELECT text FROM t WHERE a = :name"},
            r"names :name, and there is only :query, :words, :k",
        ),
        ({"query": "SELECT text FROM t LIMIT :k"}, "doesn't ask for the question. Put :words or :query"),
        ({"words": "regex"}, "words is 'regex'; expected one of fts5, tsquery, like"),
        (
            {"database": "postgresql://reader:hunter2@host/shop"},
            r"holds a password.*Name an environment variable",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message) as caught:
        SqlQuery(**{"database": "shop.db", "query": FTS, **settings})
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_said_and_not_made(tmp_path):
    path = tmp_path / "gone.db"
    with pytest.raises(NotFound, match=r"gone.db: there is no such database. Check the path"):
        SqlQuery(str(path), FTS).search("card", 1)
    assert not path.exists()


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at " * 50)
    with pytest.raises(EndpointError, match=r"text.db: file is not a database. Check the file"):
        SqlQuery(str(tmp_path / "text.db"), FTS).search("card", 1)


def test_the_file_is_opened_so_that_nothing_can_be_written(file, monkeypatch):
    # Even if the words of a statement deceived the first judge.
    monkeypatch.setattr("tailorbird.sources.sql_question.check_reads_only", lambda *_: None)
    for statement in ("DELETE FROM pages WHERE :query <> ''", "ATTACH :query AS other"):
        with pytest.raises(EndpointError, match="not authorized"):
            SqlQuery(str(file), statement).search("card", 1)
    pytest.importorskip("sqlalchemy")
    with pytest.raises(EndpointError, match="not authorized"):
        SqlQuery(f"sqlite+pysqlite:///{file}", "DELETE FROM pages WHERE :query <> ''").search("card", 1)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM pages").fetchone() == (len(ROWS),)


def test_a_database_that_cannot_be_reached_hides_its_password(monkeypatch):
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")
    with pytest.raises((Unsupported, EndpointError, RecipeError)) as caught:
        SqlQuery("nodatabase://reader:$SHOP_PASSWORD@127.0.0.1:1/shop", FTS).search("card", 1)
    assert "hunter2" not in str(caught.value)
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(NotFound, match="'SHOP_PASSWORD' is not set"):
        SqlQuery("sqlite+pysqlite://reader:$SHOP_PASSWORD@host/shop", FTS).search("card", 1)


def test_without_sqlalchemy_it_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(Unsupported, match=r"pip install 'tailorbird\[sql\]'"):
        SqlQuery("postgresql://host/shop", FTS).search("card", 1)
