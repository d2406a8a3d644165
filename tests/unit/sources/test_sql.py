"""Rows of databases: documents by id, only changed ones read, nothing written, no password stored."""

import re
import socket
import sqlite3
import time
from contextlib import closing

import pytest

from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError, Unsupported
from tailorbird.records import Document
from tailorbird.sources.database_rows import Rows
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Unreadable, Versioned
from tailorbird.sources.sql import sql_at
from tailorbird.sources.sql_statement import check_reads_only
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

ROWS = [
    (1, "Cards", "Freeze a lost card in the app.", "2026-01-01"),
    (2, "Empty", None, "2026-01-02"),
    (3, "Rates", "Rates change <b>daily</b>.", "2026-01-03"),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE articles (id INTEGER PRIMARY KEY, name TEXT, body TEXT, changed TEXT)")
        database.executemany("INSERT INTO articles VALUES (?, ?, ?, ?)", ROWS)
        database.execute("CREATE TABLE notes (shop TEXT, nr INTEGER, text TEXT)")
        database.executemany(
            "INSERT INTO notes VALUES (?, ?, ?)", [("a/b", 1, "x"), ("a", 1, "y"), (None, 1, "z")]
        )
    return path


def run(path, *statements):
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


ARTICLES = {"table": "articles", "id": "id", "text": "body", "title": "name"}


def test_the_rows_of_a_table_become_documents(file):
    first, empty, last = sql_at(str(file), **ARTICLES).documents()
    assert (first.id, first.title, first.text) == ("articles/1", "Cards", "Freeze a lost card in the app.")
    assert empty == Unreadable("articles/2", "holds no text. Delete it or add its text.")
    assert last.text == "Rates change <b>daily</b>."


def test_the_rows_of_a_query_become_documents_by_a_template(file):
    query = "-- those with a text\nSELECT id AS nr, name, body FROM articles WHERE body <> 'DELETE; x' ;\n"
    connector = sql_at(
        f"sqlite:///{file}",
        query=query,
        id="nr",
        template="# {name}\n\n{body}",
        label="help",
        text_kind="html",
    )
    assert [item.id for item in connector.documents()] == ["help/1", "help/3"]
    assert next(connector.documents()).text.startswith("# Cards Freeze")
    markdown = sql_at(
        str(file), query=query, id="nr", template="# {name}\n\n{body}", label="x", text_kind="markdown"
    )
    assert [item.title for item in markdown.documents()] == ["Cards", "Rates"]


def test_several_columns_are_lines_and_several_ids_one_id(file):
    several = sql_at(str(file), **{**ARTICLES, "text": "name, body"})
    assert next(several.documents()).text == "name: Cards\nbody: Freeze a lost card in the app."
    notes = list(sql_at(str(file), table="main.notes", id="shop, nr", text="text", label="notes").documents())
    assert notes == [
        Unreadable("notes/None/1", "the row's id is NULL. Name a column that always has a value."),
        *notes[1:],
    ]
    assert [item.id for item in notes[1:]] == ["notes/a/1", "notes/a%2Fb/1"]


def test_it_keeps_its_contract(file):
    connector = sql_at(str(file), **ARTICLES)
    check_connector(connector)
    assert not isinstance(connector, Versioned)
    versioned = sql_at(str(file), **ARTICLES, version="changed")
    check_connector(versioned)
    check_versioned(versioned)
    check_versioned(sql_at(str(file), table="notes", id="shop, nr", text="text", version="text"))


@pytest.mark.parametrize("one_by_one", [0, 1_000], ids=["whole", "one by one"])
def test_of_rows_with_a_version_only_changed_ones_are_read(file, tmp_path, monkeypatch, one_by_one):
    monkeypatch.setattr("tailorbird.sources.sql.ONE_BY_ONE", one_by_one)
    run(file, "DELETE FROM articles WHERE id = 2")
    asked, select = [], Rows.select

    def counted(self, columns, order, where=None):
        for row in select(self, columns, order, where):
            asked.append((tuple(columns), row[0]))
            yield row

    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        connector = sql_at(str(file), **ARTICLES, version="changed")
        assert index.sync(connector).added == 2
        run(
            file,
            "UPDATE articles SET body = 'Call us.', changed = '2026-02-01' WHERE id = 1",
            "INSERT INTO articles VALUES (9, 'New', 'New text.', '2026-02-02')",
            "INSERT INTO articles VALUES (10, 'Same', 'As it was.', '2026-02-02')",
        )
        monkeypatch.setattr(Rows, "select", counted)
        report = index.sync(connector)
        assert (report.added, report.changed, report.unchanged) == (2, 1, 1)
        whole = [row for columns, row in asked if "body" in columns]
        assert whole == ([1, 9, 10] if one_by_one else [1, 3, 9, 10])
        run(file, "DELETE FROM articles WHERE id = 3")
        assert index.sync(connector).removed == 1


def test_the_database_is_not_written_even_where_the_statement_was_not_judged(file, monkeypatch):
    before = file.read_bytes()
    connector = sql_at(str(file), **ARTICLES)
    for query in (
        "SELECT 1 AS id, 1 AS body, 1 AS name) AS q; DELETE FROM articles; --",
        "WITH x AS (DELETE FROM articles RETURNING *) SELECT * FROM x",
        "SELECT load_extension('/tmp/x') AS id, 1 AS body, 1 AS name",
        "SELECT id, name, body FROM pragma_writable_schema",
        "SELECT fts3_tokenizer('x', x'00') AS id, 1 AS body, 1 AS name",
    ):
        object.__setattr__(connector, "selection", type(connector.selection)(query=query))
        with pytest.raises((DocumentError, sqlite3.ProgrammingError), match=r"."):
            list(connector.documents())
    assert file.read_bytes() == before


WRITING = {
    "delete": ("DELETE FROM articles", "begins with DELETE"),
    "with delete": ("WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x", "has the word DELETE"),
    "two": ("SELECT 1; SELECT 2", "is more than one statement"),
    "into": ("SELECT * INTO b FROM a", "has the word INTO"),
    "lock": ("SELECT * FROM a FOR UPDATE", "has the word UPDATE"),
    "attach": ("ATTACH 'x' AS y", "begins with ATTACH"),
    "pragma": ("PRAGMA writable_schema = 1", "begins with PRAGMA"),
    "hidden by a comment": ("SELECT 1 /* ' */; DROP TABLE a -- '", "is more than one statement"),
    "run by MySQL": ("SELECT 1 /*! INTO OUTFILE 'x' */", "which databases read in different ways"),
    "an escaped quote": (r"SELECT '\' OR 1; DROP TABLE a --'", "has an escaped quote"),
    "dollars": ("SELECT $$'$$; DELETE FROM a; --'", r"has '\$\$', which databases read"),
    "an open quote": ("SELECT 'x", 'has "\'", which databases read'),
    "a mark of MySQL": ("SELECT 1 # '\n INTO OUTFILE x --'", "has '#', which databases read"),
    "dashes": ("SELECT 1--1 INTO OUTFILE x", "has '--', which databases read"),
    "in brackets": ("SELECT a[1 ; DROP TABLE x; SELECT b[1]", "is more than one statement"),
    "nothing": (" ; ", "begins with nothing"),
    "long": ("SELECT " + "1," * 60_000 + "1", "more than 100,000"),
}


@pytest.mark.parametrize("name", WRITING)
def test_statements_that_may_write_are_refused(file, name):
    statement, message = WRITING[name]
    with pytest.raises(
        RecipeError, match=rf"^sql: the query .*{message}.*\. Expected one SELECT that only reads\.$"
    ):
        sql_at(str(file), query=statement, id="id", text="body", label="x")


@pytest.mark.parametrize(
    "statement",
    [
        "select a.id, 'DELETE; it''s' as \"update\" from articles a -- drop\n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i AS id FROM n",
        "SELECT id, replace(body, 'x', 'y'), updated_at, offset FROM t /* insert */ WHERE x = ':y' ORDER BY 1",
    ],
)
def test_statements_that_read_are_allowed(statement):
    assert check_reads_only(statement + " ;", "sql") == statement.rstrip()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "id", "text": "body"}, "expected either table or query"),
        ({"table": "a", "query": "SELECT 1", "id": "id", "text": "b"}, "expected either table or query"),
        ({"table": "articles", "text": "body"}, "expected the id's column, and either the text's columns"),
        ({"table": "articles", "id": "id"}, "expected the id's column, and either the text's columns"),
        ({"table": "articles", "id": "id", "template": "no column"}, "or a template with columns in braces"),
        ({"table": "a", "id": "id", "text": "b", "text_kind": "pdf"}, "got text_kind 'pdf'"),
        ({"table": "a", "id": "id", "text": "b", "timeout_s": 0}, "timeout_s 0; expected .* more than 0"),
        (
            {"query": "SELECT 1", "id": "id", "text": "b"},
            "a query's rows need a name for their ids. Give a label",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(file, settings, message):
    with pytest.raises(RecipeError, match=message):
        sql_at(str(file), **settings)


ENDLESS = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT max(id) AS id, '' AS body FROM n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": "nope"}, "no such table: nope. Check the file, the query and the columns' names."),
        ({"table": "articles", "text": "bdy"}, "no such column: q.bdy."),
        (
            {"query": ENDLESS, "timeout_s": 0.2, "label": "x"},
            "took longer than 0.2 s. Give the table an index, or allow more with timeout_s.",
        ),
        ({"query": "SELECT 1 AS id, zeroblob(900000000) AS body", "label": "x"}, "string or blob too big."),
        (
            {"table": "notes", "id": "nr", "text": "text"},
            "two rows have the id 'notes/1'. Name more columns as id",
        ),
    ],
    ids=["table", "column", "endless", "huge", "twice"],
)
def test_what_cannot_be_read_is_said(file, settings, message):
    with pytest.raises(DocumentError, match=re.escape(message)):
        list(sql_at(str(file), **{"id": "id", "text": "body", **settings}).documents())


def test_values_that_are_no_text_or_too_long_are_unreadable(file, monkeypatch):
    run(file, "UPDATE articles SET body = x'00ff' WHERE id = 1")
    items = list(sql_at(str(file), **ARTICLES).documents())
    assert items[0] == Unreadable("articles/1", "column 'body' holds bytes. Name columns that hold text.")
    long = "SELECT 1 AS id, printf('%21000000c', 'x') AS body"
    (item,) = sql_at(str(file), query=long, id="id", text="body", label="x").documents()
    assert item.reason == "has 21,000,000 characters; at most 20,000,000 are read."
    run(file, "UPDATE articles SET body = CAST(x'ff41' AS TEXT) WHERE id = 1")
    assert next(sql_at(str(file), **ARTICLES).documents()).text == "\ufffdA"


def test_a_missing_or_damaged_file_is_an_error_and_forgets_nothing(file, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(sql_at(str(file), **ARTICLES))
        file.write_bytes(b"no database" * 100)
        with pytest.raises(DocumentError, match="file is not a database"):
            index.sync(sql_at(str(file), **ARTICLES))
        file.unlink()
        with pytest.raises(NotFound, match=r"shop\.db: there is no such database\. Check the path"):
            index.sync(sql_at(str(file), **ARTICLES))
        assert not file.exists()
        assert index.keyword_search("freeze")


# -- by SQLAlchemy ---------------------------------------------------------------------------------

PLACE = "postgresql+psycopg://reader@127.0.0.1:1/shop"


@pytest.fixture
def _sqlalchemy():
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg")


@pytest.mark.usefixtures("_sqlalchemy")
@pytest.mark.parametrize(
    "place",
    [
        "postgresql+psycopg://reader:s3cret@db.example/shop",
        "postgresql+psycopg://reader@db.example/shop?password=s3cret",
        "mssql+pyodbc://u@h/d?PWD=s3cret".lower(),
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Du%3BPWD%3Ds3cret",
        "mssql+pyodbc:///?odbc_connect=DRIVER={x};UID=u;PWD=s3cret",
        "snowflake://u@account/d?private_key=s3cret",
        "bigquery://project/d?api_key=s3cret",
        "postgresql+psycopg://u:$1s3cret@db.example/shop",
        "postgresql+psycopg://u:$SHOP_s3cret@db.example/shop",
        "postgresql+psycopg://u:pa@s3cret@db.example/shop",
        "postgresql+psycopg://u:$SHOP_PASSWORD@s3cret@db.example/shop",
    ],
)
def test_a_password_in_the_place_is_refused_and_not_repeated(place):
    with pytest.raises(RecipeError, match="the place holds a password, which would be stored") as caught:
        sql_at(place, **ARTICLES)
    assert "s3cret" not in str(caught.value)


@pytest.mark.usefixtures("_sqlalchemy")
@pytest.mark.parametrize(
    "query", ["password=$SHOP_PASSWORD", "passfile=/home/u/.pgpass&sslkey=/etc/u.key", "application_name=a@b"]
)
def test_names_of_variables_and_of_files_are_no_secrets(query):
    place = f"postgresql+psycopg://reader:$SHOP_PASSWORD@db.example/shop?{query}"
    assert sql_at(place, **ARTICLES).name == f"sql:{place}#articles"


@pytest.mark.usefixtures("_sqlalchemy")
def test_a_server_that_does_not_answer_is_given_up():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        place = f"postgresql+psycopg://reader@127.0.0.1:{silent.getsockname()[1]}/shop"
        began = time.monotonic()
        with pytest.raises(EndpointError, match=r"/shop: .*timeout.*Check the address"):
            list(sql_at(place, **ARTICLES, timeout_s=2.0).documents())
        assert time.monotonic() - began < 60


@pytest.mark.usefixtures("_sqlalchemy")
def test_a_database_file_that_is_not_there_is_not_made(tmp_path):
    missing = tmp_path / "missing.db"
    with pytest.raises(NotFound, match="there is no such database"):
        list(sql_at(f"sqlite+pysqlite:///{missing}", **ARTICLES).documents())
    assert not missing.exists()


@pytest.mark.usefixtures("_sqlalchemy")
def test_a_password_comes_from_the_variable_that_is_named(monkeypatch):
    connector = sql_at(PLACE, **ARTICLES, password_env="SHOP_PASSWORD")
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    with pytest.raises(NotFound, match="the environment variable 'SHOP_PASSWORD' is not set"):
        list(connector.documents())
    monkeypatch.setenv("SHOP_PASSWORD", "s3cret")
    with pytest.raises(EndpointError, match=r"reader@127\.0\.0\.1:1/shop: .*Check the address") as caught:
        list(connector.documents())
    assert "s3cret" not in str(caught.value) + repr(connector) + connector.name


@pytest.mark.usefixtures("_sqlalchemy")
def test_a_variable_stands_in_the_place_of_the_password(monkeypatch):
    connector = sql_at(PLACE.replace("reader@", "reader:$SHOP_PASSWORD@"), **ARTICLES)
    monkeypatch.setenv("SHOP_PASSWORD", "s3cret/@")
    with pytest.raises(EndpointError, match=r"reader:…@127\.0\.0\.1:1/shop: .*Check the address") as caught:
        list(connector.documents())
    assert "s3cret" not in str(caught.value) + repr(connector) + connector.name


@pytest.mark.usefixtures("_sqlalchemy")
def test_by_sqlalchemy_the_same_rows_are_read_and_nothing_is_written(file):
    place, before = f"sqlite+pysqlite:///{file}", file.read_bytes()
    query = "SELECT id, name, body || ':k' AS body, changed FROM articles WHERE body <> '12:30 %'"
    settings = {"query": query, "label": "articles", **{k: v for k, v in ARTICLES.items() if k != "table"}}
    by_url, by_path = (list(sql_at(at, **settings).documents()) for at in (place, str(file)))
    assert by_url == by_path
    assert by_url[0].text.endswith("app.:k")
    check_versioned(sql_at(place, **ARTICLES, version="changed"))
    connector = sql_at(place, **ARTICLES)
    bad = "SELECT load_extension('/x') AS id, 1 AS body, 1 AS name"
    object.__setattr__(connector, "selection", type(connector.selection)(query=bad))
    with pytest.raises(EndpointError, match=r"sql: sqlite\+pysqlite:///.*not authorized"):
        list(connector.documents())
    assert file.read_bytes() == before


@pytest.mark.usefixtures("_sqlalchemy")
def test_what_is_no_address_or_lacks_its_driver_is_said():
    with pytest.raises(RecipeError, match="the place is no database's address"):
        sql_at("my-shop://x", **ARTICLES)
    with pytest.raises(Unsupported, match=r"its driver is not installed .* Install it with pip"):
        list(sql_at("nosuchbase://u@h/d", **ARTICLES).documents())


def test_without_sqlalchemy_only_sqlite_is_read(file, monkeypatch):
    monkeypatch.setattr("tailorbird.sources.optional.find_spec", lambda _: None)
    with pytest.raises(
        Unsupported, match=r"sql: the package sqlalchemy is not installed.*'tailorbird\[sql\]'"
    ):
        sql_at(PLACE, **ARTICLES)
    assert isinstance(next(sql_at(str(file), **ARTICLES).documents()), Document)
