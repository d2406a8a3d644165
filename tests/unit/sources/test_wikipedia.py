"""The live source, against a real HTTP server on this machine that answers as the Action API does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tailorbird.errors import EndpointError
from tailorbird.sources.wikipedia import MAX_QUERY, Wikipedia
from tailorbird.testing.sources import check_source

PAGES = [
    {
        "pageid": 2,
        "ns": 0,
        "title": "Weaver",
        "index": 2,
        "extract": "Weavers are birds of Africa that weave their nests from grass.",
        "canonicalurl": "https://en.wikipedia.org/wiki/Weaver",
        "lastrevid": 22,
    },
    {
        "pageid": 1,
        "ns": 0,
        "title": "Common tailorbird",
        "index": 1,
        "extract": "The common tailorbird is a songbird. It stitches leaves together for its nest.",
        "canonicalurl": "https://en.wikipedia.org/wiki/Common_tailorbird",
        "lastrevid": 11,
    },
    {"pageid": 3, "ns": 0, "title": "Empty", "index": 3, "extract": "", "canonicalurl": "x", "lastrevid": 1},
]
FOUND = {"batchcomplete": True, "query": {"pages": PAGES}}
LAGGING = {"error": {"code": "maxlag", "info": "Waiting for a server: 7 seconds lagged."}}


class Wiki(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, and with the last from then on."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers = [(200, FOUND)]
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/w/api.php"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        wiki = self.server
        parameters = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        wiki.asked.append((parameters, self.headers))
        status, answer = wiki.answers.pop(0) if len(wiki.answers) > 1 else wiki.answers[0]
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def wiki(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Wiki() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_pages_come_as_passages_in_the_order_of_the_wiki(wiki):
    first, second = Wikipedia(endpoint=wiki.url).search("nest", 5)
    assert first.document == "https://en.wikipedia.org/wiki/Common_tailorbird"
    assert first.text == PAGES[1]["extract"]
    assert (first.title, first.version) == ("Common tailorbird", "11")
    assert second.title == "Weaver"


def test_the_wiki_is_asked_politely_for_openings_as_plain_text(wiki):
    Wikipedia(endpoint=wiki.url).search("nests of birds", 3)
    [(parameters, headers)] = wiki.asked
    assert headers["User-Agent"].startswith("tailorbird/")
    assert parameters["maxlag"] == "5"
    assert (parameters["gsrsearch"], parameters["gsrlimit"]) == ("nests of birds", "3")
    assert parameters["explaintext"] == parameters["exintro"] == "1"


def test_the_operators_of_the_wikis_search_and_overlong_questions_are_not_sent(wiki):
    source = Wikipedia(endpoint=wiki.url)
    source.search('insource:/a.*b/ -nest "bird"~2 Darwin\'s', 3)
    source.search("weaver " * 500, 3)
    source.search("x" * 5000, 3)
    sent = [parameters["gsrsearch"] for parameters, _ in wiki.asked]
    assert sent[0] == "insource a b nest bird 2 darwin's"
    assert sent[1] == " ".join(["weaver"] * 43)
    assert sent[2] == "x" * MAX_QUERY
    assert all(len(query) <= MAX_QUERY for query in sent)


def test_nothing_is_asked_for_a_blank_question_or_no_passages(wiki):
    source = Wikipedia(endpoint=wiki.url)
    assert source.search(" ?! ", 3) == source.search("nest", 0) == []
    assert wiki.asked == []


def test_a_search_without_hits_finds_nothing(wiki):
    wiki.answers = [(200, {"batchcomplete": True})]
    assert Wikipedia(endpoint=wiki.url).search("qwertzuiop", 3) == []


def test_a_wiki_that_lags_is_asked_again(wiki):
    wiki.answers = [(200, LAGGING), (503, b"busy"), (200, FOUND)]
    assert len(Wikipedia(endpoint=wiki.url).search("nest", 2)) == 2
    assert len(wiki.asked) == 3


def test_a_wiki_that_goes_on_lagging_is_an_error(wiki):
    wiki.answers = [(200, LAGGING)]
    with pytest.raises(EndpointError, match=r"is busy: it refused 3 times\. Try again later"):
        Wikipedia(endpoint=wiki.url).search("nest", 2)
    assert len(wiki.asked) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, b"<html>"), "status 404: not an answer of the MediaWiki API"),
        ((200, b"<html>"), "status 200: not an answer of the MediaWiki API"),
        ((200, ["a list"]), "status 200: not an answer of the MediaWiki API"),
        ((200, {"error": {"code": "x", "info": "Bad value."}}), "status 200: Bad value"),
        ((302, b""), "status 302"),
        ((200, {"query": {"pages": [{"title": "no extract or index"}]}}), "pages of an unknown form"),
        ((200, {"query": ["?"]}), "pages of an unknown form"),
    ],
)
def test_an_answer_that_is_none_is_an_error(wiki, answer, message):
    wiki.answers = [answer]
    with pytest.raises(EndpointError, match=message):
        Wikipedia(endpoint=wiki.url).search("nest", 2)


def test_a_wiki_that_cannot_be_reached_is_an_error(wiki):
    url = wiki.url
    wiki.shutdown()
    wiki.server_close()
    with pytest.raises(
        EndpointError, match=r"cannot be reached: .*index a folder of documents instead"
    ) as caught:
        Wikipedia(endpoint=url, timeout_s=2).search("my private nest", 2)
    assert "private" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["no address", "ftp://host/api.php", "http://", "http://[::1"])
def test_an_address_that_is_none_is_an_error(endpoint):
    with pytest.raises(EndpointError, match="cannot be reached"):
        Wikipedia(endpoint=endpoint).search("nest", 2)


def test_the_language_chooses_the_wikipedia():
    assert Wikipedia("de").url == "https://de.wikipedia.org/w/api.php"


def test_long_openings_are_cut_and_the_fitting_passage_comes_first(wiki):
    filler = "This sentence speaks of something else entirely, at length. " * 14
    page = dict(PAGES[0], index=1, extract=f"{filler}\n\nThe nest hangs from a branch.\n\n{filler}")
    wiki.answers = [(200, {"query": {"pages": [page]}})]
    passages = Wikipedia(endpoint=wiki.url).search("nest branch", 2)
    assert len(passages) == 2
    assert any("nest hangs" in passage.text for passage in passages)


def test_invisible_and_directional_characters_are_left_out(wiki):
    page = dict(PAGES[0], index=1, extract="The nest\u200b hangs\u202e low.\x00", title="Wea\u2066ver")
    wiki.answers = [(200, {"query": {"pages": [page]}})]
    [found] = Wikipedia(endpoint=wiki.url).search("nest", 2)
    assert (found.title, found.text) == ("Weaver", "The nest hangs low.")


def test_it_keeps_the_contract_of_sources(wiki):
    check_source(Wikipedia(endpoint=wiki.url), ["birds that weave nests"])
