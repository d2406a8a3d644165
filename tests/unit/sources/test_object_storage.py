"""Objects in storages: documents by key and ETag; too large ones never loaded, nothing asked without credentials."""

import re
from dataclasses import replace

import pytest
from website import Website

from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import EndpointError, NotFound, RecipeError, Unsupported
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.object_storage import CREDENTIALS, object_storage_at
from tailorbird.sources.source import Unreadable
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

pytest.importorskip("obstore")

FILES = {
    "card.md": "# Lost cards\n\nFreeze a lost card.",
    "inner/fees & more.html": "<title>Fees</title><p>Two euros.</p>",
    "inner/old/a.txt": "Old.",
    ".hidden/a.md": "Hidden.",
    "photo.png": "no text",
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "objects"
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch):
    for name in [name for groups in CREDENTIALS.values() for group in groups for name in group] + [
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    ]:
        monkeypatch.delenv(name, raising=False)


def items(connector):
    return {item.id: item for item in connector.documents()}


def test_objects_become_documents(folder):
    found = items(object_storage_at(folder.as_uri()))
    assert list(found) == ["card.md", "inner/fees & more.html", "inner/old/a.txt", "photo.png"]
    assert (found["card.md"].title, found["inner/fees & more.html"].text) == ("Lost cards", "Two euros.")
    assert found["photo.png"].reason.startswith("files of type .png are not read; expected .txt,")


def test_it_keeps_its_contract(folder):
    connector = object_storage_at(folder.as_uri(), id_prefix="store/")
    check_connector(connector)
    check_versioned(connector)


def test_patterns_and_the_beginning_of_keys_choose_objects(folder):
    found = items(object_storage_at((folder / "inner").as_uri(), exclude="old/", id_prefix="s/"))
    assert list(found) == ["s/fees & more.html"]
    assert list(items(object_storage_at(folder.as_uri(), include="*.md, *.txt"))) == [
        "card.md",
        "inner/old/a.txt",
    ]


def test_a_second_sync_loads_only_what_changed(folder, tmp_path, monkeypatch):
    import obstore

    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        connector = object_storage_at(folder.as_uri(), exclude="*.png")
        assert index.sync(connector).added == 3
        (folder / "card.md").write_text("# Lost cards\n\nCall us about a lost card.")
        (folder / "inner" / "old" / "a.txt").unlink()
        loaded, get = [], obstore.get
        monkeypatch.setattr(obstore, "get", lambda store, key: loaded.append(key) or get(store, key))
        report = index.sync(connector)
        assert (report.changed, report.removed, report.unchanged) == (1, 1, 1)
        assert loaded == ["card.md"]


def test_an_object_of_ten_gigabytes_is_never_loaded(folder, monkeypatch):
    import obstore

    with (folder / "large.txt").open("wb") as large:
        large.truncate(10 * 2**30)
    loaded, get = [], obstore.get
    monkeypatch.setattr(obstore, "get", lambda store, key: loaded.append(key) or get(store, key))
    assert items(object_storage_at(folder.as_uri()))["large.txt"] == Unreadable(
        "large.txt", "10240 MB; at most 50 MB are read. Divide it."
    )
    assert "large.txt" not in loaded


def test_links_that_lead_out_of_a_folder_are_not_followed(folder, tmp_path):
    (tmp_path / "secret.md").write_text("secret")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "inside.md").symlink_to(folder / "card.md")
    found = items(object_storage_at(folder.as_uri()))
    assert (
        found["link.md"].reason
        == "is a link that leads out of the folder, and is not followed. Copy the file."
    )
    assert isinstance(found["inside.md"], Document)


@pytest.mark.parametrize(
    ("place", "settings", "message"),
    [
        ("ftp://host/x", {}, "the place is none that is read. Expected s3://bucket/beginning"),
        ("s3://", {}, "the place is none that is read"),
        ("s3://key:s3cret@bucket/x", {}, "Credentials belong into the environment"),
        ("az://container/x?sig=s3cret", {}, "Credentials belong into the environment"),
        ("gs://b", {"endpoint": "http://x"}, "for a place of s3://, without credentials"),
        ("s3://b", {"endpoint": "https://u:s3cret@x"}, "for a place of s3://, without credentials"),
        ("s3://b", {"endpoint": "ftp://x"}, "expected endpoint to be http:// or https://"),
        ("s3://b", {"include": [""]}, "expected one to 500 characters"),
    ],
)
def test_places_and_settings_that_make_no_sense_are_refused_and_secrets_not_repeated(
    place, settings, message
):
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        object_storage_at(place, **settings)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("s3://bucket/x", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ("s3://bucket/x", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ("az://container", "AZURE_CLIENT_ID"),
    ],
)
def test_half_of_the_credentials_is_none(place, name, monkeypatch):
    monkeypatch.setenv(name, "x")
    with pytest.raises(NotFound, match=f"expected one of .*{name} with "):
        list(object_storage_at(place).documents())


@pytest.mark.parametrize("place", ["s3://bucket/x", "gs://bucket", "az://container"])
def test_without_credentials_nothing_is_asked(place):
    with pytest.raises(
        NotFound, match=r"there are no credentials in the environment; expected one of [A-Z_ with]+, "
    ):
        list(object_storage_at(place).documents())


def test_a_missing_folder_and_a_missing_package_are_said(tmp_path, monkeypatch):
    with pytest.raises(NotFound, match=r"nope: there is no such folder\. Name the folder"):
        list(object_storage_at((tmp_path / "nope").as_uri()).documents())
    monkeypatch.setattr("tailorbird.sources.optional.find_spec", lambda _: None)
    with pytest.raises(Unsupported, match=r"the package obstore is not installed.*'tailorbird\[storage\]'"):
        object_storage_at("s3://b")


# -- a server that speaks as much of S3 as reading takes ------------------------------------------


def listing(*objects):
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{tag}&quot;</ETag>"
        f"<Size>{size}</Size></Contents>"
        for key, tag, size in objects
    )
    return (
        200,
        {"Content-Type": "application/xml"},
        f"<ListBucketResult><Name>shop</Name>{contents}</ListBucketResult>",
    )


def stored(text):
    return (
        200,
        {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "ETag": '"t"', "Content-Type": "text/plain"},
        text,
    )


LIST = "/shop?list-type=2"


@pytest.fixture
def server():
    with Website().running() as site:
        yield site


def storage(server, **settings):
    return object_storage_at("s3://shop", endpoint=server.url("").rstrip("/"), anonymous=True, **settings)


def test_a_server_of_its_own_is_asked_without_credentials_where_everyone_may_read(server):
    server.pages |= {
        LIST: listing(("a.md", "1", 5), ("b.md", "2", 5), ("c.md", "3", 99_999_999_999)),
        "/shop/a.md": stored("Fine."),
        "/shop/b.md": (403, {}, "<Error><Code>AccessDenied</Code></Error>"),
    }
    found = items(storage(server))
    assert (found["a.md"].text, found["a.md"].version) == ("Fine.", "1")
    assert "b.md: may not be read with the environment's credentials" in "b.md: " + found["b.md"].reason
    assert found["c.md"].reason == "95367 MB; at most 50 MB are read. Divide it."
    assert not any("Authorization" in headers for _, headers in server.asked)


def test_an_object_larger_than_was_told_is_loaded_no_further_than_the_limit(server, monkeypatch):
    server.pages |= {LIST: listing(("a.md", "1", 5)), "/shop/a.md": stored("x" * 3_000_000)}
    limits = ParserProcess().limits
    init = ParserProcess.__init__
    small = replace(limits, file_bytes=1_000_000)
    monkeypatch.setattr(ParserProcess, "__init__", lambda self, _=None: init(self, small))
    assert items(storage(server))["a.md"].reason == (
        "larger than 1,000,000 bytes, which is the most that is read."
    )


def test_keys_that_lead_elsewhere_are_names_and_nothing_else(server, tmp_path):
    server.pages |= {LIST: listing(("x/%2e%2e/a.md", "1", 5), ("/etc/b.md", "2", 5))}
    try:
        found = items(storage(server))
    except EndpointError as error:  # obstore refuses the whole listing
        assert "cannot be read" in str(error)  # noqa: PT017
    else:
        assert all(isinstance(item, Unreadable) for item in found.values())
    assert all(path.startswith("/shop") for path in server.paths)


def test_an_outage_is_an_error_and_the_index_keeps_what_it_has(server, tmp_path):
    server.pages |= {LIST: listing(("a.md", "1", 5)), "/shop/a.md": stored("Fine.")}
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(storage(server)).added == 1
        server.pages[LIST] = (403, {}, "<Error><Code>AccessDenied</Code></Error>")
        with pytest.raises(
            EndpointError, match=r"s3://shop: cannot be read \(.*403 Forbidden.*Check the place"
        ):
            index.sync(storage(server))
        server.pages[LIST] = (404, {}, "<Error><Code>NoSuchBucket</Code></Error>")
        with pytest.raises(EndpointError, match=r"s3://shop: cannot be read \(.*404 Not Found"):
            index.sync(storage(server))
        server.pages[LIST] = (200, {}, "no XML")
        with pytest.raises(EndpointError, match=r"s3://shop: cannot be read"):
            index.sync(storage(server))
        assert index.keyword_search("fine")


def test_credentials_of_the_environment_sign_what_is_asked(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    server.pages |= {LIST: listing(("a.md", "1", 5)), "/shop/a.md": stored("Fine.")}
    connector = object_storage_at("s3://shop", endpoint=server.url("").rstrip("/"), region="eu-central-1")
    assert items(connector)["a.md"].text == "Fine."
    signed = [headers.get("Authorization", headers.get("authorization", "")) for _, headers in server.asked]
    assert all("Credential=key/" in header and "s3cret" not in header for header in signed)
    assert "s3cret" not in repr(connector) + connector.name
