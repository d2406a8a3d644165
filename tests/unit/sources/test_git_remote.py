"""Git repositories on a server: git's own server, real commits; only what changed is fetched, and no secret told."""

import subprocess

import pytest
from git_server import GitServer, is_there

from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError
from tailorbird.knowledge_bases import _kind_of
from tailorbird.sources.git import git_at
from tailorbird.sources.git_remote import RemoteGitRepository
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

pytest.importorskip("dulwich")
pytestmark = pytest.mark.skipif(not is_there(), reason="git and its http-backend are not installed")

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


def git(folder, *arguments):
    run = subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def work(tmp_path):
    """A repository with three commits, a branch and an annotated tag."""
    folder = tmp_path / "served" / "shop.git"
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "docs").mkdir()
    for number, text in enumerate(("old", "older", "Opens at nine.")):
        (folder / "README.md").write_text(f"# Shop\n\n{text}\n")
        (folder / "docs" / f"fee{number}.txt").write_text(f"A transfer costs {number} euros.\n" * 50)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"number {number}")
        if number == 1:
            git(folder, "tag", "-a", "v1", "-m", "one")
            git(folder, "branch", "early")
    return folder


@pytest.fixture
def server(work):
    with GitServer(work.parent).running() as running:
        yield running


def at(server, **settings):
    return git_at(f"http://{server.host}/shop.git", allow_hosts=server.host, **settings)


def texts(connector):
    return {item.id: item.text for item in connector.documents()}


def test_the_files_of_a_commit_on_a_server_become_documents(server, work, home):
    found = texts(at(server))
    assert list(found) == ["README.md", "docs/fee0.txt", "docs/fee1.txt", "docs/fee2.txt"]
    assert found["README.md"] == "# Shop\n\nOpens at nine."
    assert found == {item.id: item.text for item in git_at(str(work)).documents()}
    [place] = (home / "git").glob("*/*")
    assert place.name == git(work, "rev-parse", "HEAD")
    objects = [path for path in place.rglob("*.pack") if path.stat().st_size > 12]
    assert len(objects) == 1
    assert not list(place.glob("hooks/*")), "nothing that could be run comes along"


@pytest.mark.parametrize("ref", ["early", "v1", "refs/tags/v1"])
def test_branches_and_tags_are_named_by_ref(server, ref):
    assert texts(at(server, ref=ref))["README.md"] == "# Shop\n\nolder"


def test_a_commit_is_named_by_its_whole_hash(server, work):
    commit = git(work, "rev-parse", "HEAD")
    assert "Opens at nine." in texts(at(server, ref=commit))["README.md"]


def test_it_keeps_its_contract(server):
    check_connector(at(server, id_prefix="shop/"))
    check_versioned(at(server, include="docs/"))


def test_only_another_commit_is_fetched_and_only_what_changed_is_read(server, work, tmp_path, home):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(at(server)).added == 4
        server.asked.clear()
        assert index.sync(at(server)).unchanged == 4
        assert [method for method, *_ in server.asked] == ["GET"], "an unchanged commit was fetched again"
        for number in range(3):
            (work / "README.md").write_text(f"# Shop\n\nOpens at {number}.\n")
            git(work, "commit", "--quiet", "-am", "opens")
            report = index.sync(at(server))
            assert (report.changed, report.unchanged) == (1, 3)
        assert len(list((home / "git").glob("*/*"))) == 2, "old commits stay in the cache"


def test_a_token_is_sent_and_never_shown(server, monkeypatch):
    server.token = "Basic eC1hY2Nlc3MtdG9rZW46czNjcmV0"  # x-access-token:s3cret
    with pytest.raises(EndpointError, match="status 401: it is not open to all; set token_env"):
        texts(at(server))
    connector = at(server, token_env="SHOP_TOKEN")
    with pytest.raises(NotFound, match="the environment variable 'SHOP_TOKEN' is not set"):
        texts(connector)
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    assert len(texts(connector)) == 4
    monkeypatch.setenv("SHOP_TOKEN", "wr0ng")
    with pytest.raises(EndpointError) as caught:
        texts(connector)
    assert "wr0ng" not in str(caught.value) + repr(connector)


def test_a_redirect_to_another_host_gets_no_token(server, work, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    with GitServer(work.parent).running() as other:
        server.respond = lambda path: (302, {"Location": f"http://{other.host}{path}"}, b"")
        hosts = f"{server.host}, {other.host}"
        connector = git_at(f"http://{server.host}/shop.git", allow_hosts=hosts, token_env="SHOP_TOKEN")
        assert len(texts(connector)) == 4
        assert {authorization for *_, authorization in other.asked} == {""}
        assert {authorization for *_, authorization in server.asked} != {""}


def test_what_is_not_there_is_said(server):
    with pytest.raises(
        NotFound, match=r"/shop.git: has no branch, tag or commit 'late'. Branches: early, main."
    ):
        texts(at(server, ref="late"))
    missing = git_at(f"http://{server.host}/none.git", allow_hosts=server.host)
    with pytest.raises(NotFound, match=r"/none.git: there is no git repository. Check the address"):
        texts(missing)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>", "text/html"),
        (b"", "application/x-git-upload-pack-advertisement"),
        (b"zzzz", "application/x-git-upload-pack-advertisement"),
        (b"001e# service=git-upload-pack\n0000003a", "application/x-git-upload-pack-advertisement"),
    ],
    ids=["page", "nothing", "nonsense", "cut"],
)
def test_what_is_no_git_server_is_said(server, content, kind):
    server.respond = lambda _: (200, {"Content-Type": kind}, content)
    with pytest.raises(
        (NotFound, EndpointError), match=r"git: http://127.0.0.1:\d+/shop.git: .*Check the address"
    ):
        texts(at(server))


def test_a_damaged_or_endless_pack_is_refused_and_the_index_keeps_what_it_has(server, work, tmp_path, home):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(at(server))
        (work / "README.md").write_text("# Shop\n\nOpens at ten.\n")
        git(work, "commit", "--quiet", "-am", "ten")
        real = server.backend

        def broken(request, body):
            status, headers, content = real(request, body)
            return status, headers, content.replace(b"PACK\0\0\0\x02", b"PACK\0\0\0\x02\xff\xff", 1)

        server.backend = broken
        with pytest.raises((DocumentError, EndpointError)) as caught:
            index.sync(at(server))
        assert str(home) not in str(caught.value)
        assert len(index.document_names()) == 4
        server.backend = real
        assert index.sync(at(server)).changed == 1, "a damaged pack is kept for good"


def test_what_is_damaged_in_the_cache_is_fetched_again(server, home):
    assert len(texts(at(server))) == 4
    [pack] = (home / "git").rglob("pack-fetched.pack")
    pack.write_bytes(pack.read_bytes()[:-40])
    pack.with_suffix(".idx").unlink()
    with pytest.raises(DocumentError, match=r"git: http://127.0.0.1:\d+/shop.git: damaged") as caught:
        texts(at(server))
    assert str(home) not in str(caught.value)
    assert len(texts(at(server))) == 4


def test_more_than_is_allowed_is_not_fetched(server, work):
    import random

    (work / "noise.txt").write_bytes(random.Random(0).randbytes(2**20 + 2**19))
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "noise")
    with pytest.raises(DocumentError, match=r"larger than 1,048,576 bytes.*Allow more with most_mb"):
        texts(at(server, most_mb=1))


@pytest.mark.parametrize(
    ("place", "settings", "message"),
    [
        ("ssh://git@example.org/shop.git", {}, "fetched over http(s) alone"),
        ("https://u:s3cret@example.org/shop.git", {}, "holds credentials"),
        ("https://example.org/shop.git?token=s3cret", {}, "without a question mark"),
        ("http://example.org/shop.git", {"token_env": "X"}, "the token would be sent unencrypted"),
        (
            "http://example.org/shop.git",
            {"token_env": "X", "allow_hosts": "other.example"},
            "name this host in allow_hosts",
        ),
        ("https://example.org/shop.git", {"most_mb": 0}, "expected most_mb of 1 or more"),
    ],
    ids=["ssh", "password", "query", "plain", "plain_elsewhere", "size"],
)
def test_addresses_that_make_no_sense_are_refused(place, settings, message):
    with pytest.raises(RecipeError) as caught:
        git_at(place, **settings)
    assert message in str(caught.value)
    assert "u:s3cret" not in str(caught.value)


def test_private_hosts_are_refused_unless_they_are_named(server):
    with pytest.raises(DocumentError, match="allow_hosts"):
        texts(git_at(f"http://{server.host}/shop.git"))


def test_an_address_that_ends_like_a_repository_is_one():
    assert _kind_of("https://example.org/shop.git") == "git"
    assert isinstance(git_at("https://example.org/shop.git"), RemoteGitRepository)
