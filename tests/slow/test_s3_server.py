"""A real S3 server (moto's): objects with odd keys, large ones by their size, many pages of listing, deletions."""

import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from tailorbird.errors import EndpointError
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.object_storage import object_storage_at
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """moto's server: the installed one, or one in an environment of its own."""
    found = shutil.which("moto_server")
    if found:
        return found
    place = tmp_path_factory.mktemp("moto") / "venv"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    command = [place / "bin" / "python", "-m", "pip", "install", "-q", "moto[server]"]
    if subprocess.run(command, check=False, capture_output=True, timeout=600).returncode != 0:
        pytest.skip("moto[server] can't be installed here")
    return place / "bin" / "moto_server"


@pytest.fixture(scope="module")
def endpoint(program):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """A store to fill a new bucket by."""
    store = pytest.importorskip("obstore.store")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    name = f"shop-{time.time_ns()}"
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import urllib.request as u; u.urlopen(u.Request('{endpoint}/{name}', method='PUT'))",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    options = {"allow_http": True}
    return name, store.S3Store(name, endpoint=endpoint, region="us-east-1", client_options=options)


def connector(bucket, endpoint, prefix="", **settings):
    return object_storage_at(f"s3://{bucket[0]}/{prefix}", endpoint=endpoint, region="us-east-1", **settings)


def test_objects_are_read_and_read_again_where_they_changed(bucket, endpoint, tmp_path):
    _, store = bucket
    for key, text in {
        "docs/card.md": b"# Lost cards\n\nFreeze a lost card.",
        "docs/a b & ü+%.txt": b"Odd keys are keys.",
        "docs/page.html": b"<title>Fees</title><p>Two euros.</p>",
        "other/x.txt": b"Not asked for.",
    }.items():
        store.put(key, text)
    documents = connector(bucket, endpoint, "docs")
    check_connector(documents)
    check_versioned(documents)
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(documents).added == 3
        assert index.search("odd keys", 1)[0].document == "a b & ü+%.txt"
        store.put("docs/card.md", b"# Lost cards\n\nCall us.")
        store.delete("docs/page.html")
        report = index.sync(documents)
        assert (report.changed, report.removed, report.unchanged) == (1, 1, 1)


def test_a_listing_of_many_pages_is_read_whole_and_a_large_object_by_its_size_alone(bucket, endpoint):
    _, store = bucket
    for n in range(1_050):  # a page of S3's listing has 1,000
        store.put(f"{n:04}.txt", b"Text.")
    store.put("large.txt", b"x" * (51 * 2**20))
    items = list(connector(bucket, endpoint).documents())
    assert sum(isinstance(item, Document) for item in items) == 1_050
    assert items[-1].reason == "51 MB; at most 50 MB are read. Divide it."


def test_a_bucket_that_is_not_there_is_an_error(bucket, endpoint):
    with pytest.raises(EndpointError, match=r"s3://nosuch/: cannot be read \(.*404"):
        list(object_storage_at("s3://nosuch/", endpoint=endpoint, region="us-east-1").documents())
