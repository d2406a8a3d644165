"""Questions to a real PostgreSQL: found by its own search, in a transaction that can write nothing, within a time."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

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


def programs():
    """Where the server's programs are, if they are anywhere."""
    places = [
        Path(shutil.which("initdb") or "/none").resolve().parent,
        *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
    ]
    return next((place for place in places if (place / "initdb").is_file()), None)


@contextmanager
def postgres():
    """A server of its own; it refuses to run as root, so then as `nobody`."""
    place, user = programs(), None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = nobody.pw_name
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    usual = {"user": user, "capture_output": True, "cwd": folder, "timeout": 120}
    data = folder / "data"
    subprocess.run(
        [place / "initdb", "-D", data, "-U", "owner", "--auth=trust", "--no-sync"], check=True, **usual
    )
    (data / "pg_hba.conf").write_text(
        "local all all trust\nhost all owner 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    command = [
        place / "postgres",
        "-D",
        data,
        "-p",
        str(port),
        "-k",
        folder,
        "-c",
        "fsync=off",
        "-c",
        "listen_addresses=127.0.0.1",
    ]
    server = subprocess.Popen(
        command, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while subprocess.run(
            [place / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < end, "PostgreSQL did not start"
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def database():
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    psycopg = pytest.importorskip("psycopg", reason="psycopg, PostgreSQL's driver, is not installed")
    pytest.importorskip("sqlalchemy")
    with postgres() as port:
        with psycopg.connect(host="127.0.0.1", port=port, user="owner", dbname="postgres") as connection:
            connection.execute(TABLES)
        yield f"postgresql+psycopg://reader:$SHOP_PASSWORD@127.0.0.1:{port}/postgres"


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
