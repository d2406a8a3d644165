"""`tailor knowledge add` of what isn't a folder: the kind is told from the place, or named."""

import bz2
import json
import sqlite3
import subprocess
from contextlib import closing

import pytest
from git_server import GitServer, is_there

from tailorbird.cli import main
from tailorbird.errors import InputError
from tailorbird.knowledge_bases import _kind_of, _where


@pytest.fixture
def knowledge(tmp_path, monkeypatch, capsys):
    """Runs the command here: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)

    def call(*arguments):
        code = main.run(["knowledge", *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("docs", "folder"),
        ("work/enwiki-20260101-pages-articles-multistream.xml.bz2", "wikipedia_dump"),
        ("enwiki-latest-pages-articles1.xml-p10p30302.bz2", "wikipedia_dump"),
        ("simplewiki-pages-meta-current.xml", "wikipedia_dump"),
        ("wikipedia_en_all_nopic_2026-01.ZIM", "zim"),
        ("shop.sqlite", "sql"),
        ("shop.db", "sql"),
        ("sqlite:///shop.bin", "sql"),
        ("postgresql+psycopg://u@h/shop", "sql"),
        ("MySQL://u@h/shop", "sql"),
        ("s3://bucket/x", "object_storage"),
        ("gs://bucket", "object_storage"),
        ("az://container/x", "object_storage"),
        ("file:///tmp/x", "object_storage"),
        ("srv/handbook.git", "git"),
    ],
)
def test_the_kind_is_told_from_the_place(place, kind):
    assert _kind_of(place) == kind


def test_a_folder_stays_a_folder_whatever_it_is_called(tmp_path):
    (tmp_path / "old.db" / ".git").mkdir(parents=True)
    assert _kind_of(str(tmp_path / "old.db")) == "folder"


@pytest.mark.parametrize("place", ["https://example.org/", "https://example.org/a.git/", "nosuch://x"])
def test_what_is_in_doubt_has_to_be_said(place):
    with pytest.raises(
        InputError, match=r"say with --kind which connector reads it\. Known: folder, web_pages"
    ):
        _kind_of(place)


def test_paths_are_kept_whole_and_addresses_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _where("shop.db") == _where("sqlite:///shop.db") == str(tmp_path / "shop.db")
    assert _where("postgresql://u@h/shop") == "postgresql://u@h/shop"


def test_a_database_is_added_synced_and_searched(tmp_path, knowledge, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute(
            "CREATE TABLE articles (id INTEGER PRIMARY KEY, name TEXT, body TEXT, changed INTEGER)"
        )
        database.execute(
            "INSERT INTO articles VALUES (1, 'Returns', 'Helmets may be returned within 30 days.', 1)"
        )
    settings = ["table=articles", "id=id", "text=body", "title=name", "version=changed"]
    code, out, err = knowledge("add", "desk", "shop.db", *(word for s in settings for word in ("--set", s)))
    assert code == 0, err
    assert "documents  1 added" in out
    (tmp_path / "elsewhere").mkdir()
    code, out, _ = knowledge("search", "desk", "helmets", "-k", "1", "--json")
    assert json.loads(out)[0]["document"] == "articles/1"
    code, out, _ = knowledge("sync", "desk")
    assert "1 unchanged" in out


def test_a_dump_is_added_by_its_name(tmp_path, knowledge):
    text = (
        "<mediawiki><siteinfo><base>https://w.example/wiki/Main</base></siteinfo><page><title>Helmet</title><ns>0</ns>"
        "<revision><id>5</id><text>A '''helmet''' protects the [[head]].</text></revision></page></mediawiki>"
    )
    (tmp_path / "w-pages-articles.xml.bz2").write_bytes(bz2.compress(text.encode()))
    code, _, err = knowledge("add", "wiki", "w-pages-articles.xml.bz2")
    assert code == 0, err
    code, out, _ = knowledge("search", "wiki", "helmet", "-k", "1")
    assert "https://w.example/wiki/Helmet" in out
    assert "A helmet protects the head." in out


def test_a_password_is_never_stored(tmp_path, knowledge):
    pytest.importorskip("sqlalchemy")
    place = "postgresql+psycopg://u:s3cret@h/shop"
    code, out, err = knowledge("add", "desk", place, "--set", "table=a", "--set", "id=id", "--set", "text=b")
    assert code == 2
    assert "the place holds a password, which would be stored" in err
    assert "s3cret" not in out + err
    assert not list(tmp_path.rglob("knowledge.json"))


def test_a_repository_over_ssh_has_to_be_cloned_first(knowledge):
    pytest.importorskip("dulwich")
    for place in ("git+ssh://git@example.org/a.git", "ssh://git@example.org/a.git"):
        code, _, err = knowledge("add", "desk", place)
        assert code == 2
        assert "git: repositories are fetched over http(s) alone" in err


@pytest.mark.skipif(not is_there(), reason="git and its http-backend are not installed")
def test_a_repository_on_a_server_is_added_by_its_address(knowledge, tmp_path):
    pytest.importorskip("dulwich")
    folder = tmp_path / "served" / "shop.git"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("Helmets may be returned within 30 days.")
    own = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "--quiet"), ("add", "."), (*own, "commit", "--quiet", "-m", "x")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    with GitServer(folder.parent).running() as server:
        place = f"http://{server.host}/shop.git"
        code, _, err = knowledge("add", "desk", place)
        assert code == 2
        assert "allow_hosts" in err
        code, out, err = knowledge("add", "desk", place, "--set", f"allow_hosts={server.host}")
        assert code == 0, err
        assert "documents  1 added" in out
        out = knowledge("search", "desk", "How long may I return a helmet?", "-k", "1")[1]
        assert out.startswith("[1] README.md")


def test_a_wrong_setting_is_an_error(knowledge):
    code, _, err = knowledge("add", "desk", "a.zim", "--no-sync", "--set", "nope=1")
    assert code == 2
    assert "connector 'zim':" in err
    assert "Check the settings' names and values." in err
