"""Live sources by the command line: tried, customized with, compared and asked, on servers of this machine."""

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from endpoint import Endpoint, said
from website import Website

from tailorbird.cli import main
from tailorbird.sources.live_sources import forget_answers

RESULTS = [
    {
        "title": "Gloves",
        "text": "Gloves may be returned within 14 days.",
        "url": "https://shop.example/gloves",
    },
    {"title": "Bells", "text": "Bells are never taken back.", "url": "https://shop.example/bells"},
]
TOML = """\
base = "{base}#tiny"
key_env = ""

[sources.shop]
kind = "search_api"
url = "{api}?q={{query}}&n={{k}}"
headers = {{ X-Key = "$SHOP_KEY" }}
timeout_s = 5
"""


class Api(Website):
    """A search API that answers every question alike."""

    def __init__(self):
        super().__init__()
        self.status = 200

    @property
    def queries(self):
        return [parse_qs(urlsplit(path).query)["q"][0] for path in self.paths]


class Pages(dict):
    def __init__(self, api):
        super().__init__()
        self.api = api

    def get(self, path, default=None):
        return self.api.status, {"Content-Type": "application/json"}, json.dumps({"results": RESULTS})


@pytest.fixture
def api():
    with Api().running() as server:
        server.pages = Pages(server)
        yield server


@pytest.fixture
def endpoint():
    endpoint = Endpoint(lambda body: (200, said("within 14 days")))
    with endpoint.running() as url:
        endpoint.url = url
        yield endpoint


@pytest.fixture
def project(tmp_path, monkeypatch, api, endpoint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)
    monkeypatch.setenv("SHOP_KEY", "s3cret")
    (tmp_path / "tailor.toml").write_text(TOML.format(base=endpoint.url, api=api.url("/find")))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "helmets.md").write_text("Helmets may be returned within 30 days.")
    forget_answers()
    yield tmp_path
    forget_answers()


@pytest.fixture
def tailor(project, capsys):
    """Runs the command here: (exit code, stdout, stderr)."""

    def call(*arguments):
        code = main.run([*arguments])
        return code, *capsys.readouterr()

    return call


def test_a_source_is_tried_alone_and_beside_a_knowledge_base(tailor, api):
    code, out, err = tailor("knowledge", "search", "return gloves", "--source", "shop", "-k", "1")
    assert code == 0, err
    assert out.startswith("[1] shop: https://shop.example/gloves")
    assert api.asked[0][1]["X-Key"] == "s3cret"
    assert tailor("knowledge", "add", "help", "docs")[0] == 0
    code, out, _ = tailor("knowledge", "search", "help", "return helmets", "--source", "shop", "--json")
    assert code == 0
    assert [(p["source"], p["document"]) for p in json.loads(out)] == [
        ("", "helmets.md"),
        ("shop", "https://shop.example/gloves"),
        ("shop", "https://shop.example/bells"),
    ]


def test_a_source_that_fails_is_said_and_the_rest_shown(tailor, api):
    assert tailor("knowledge", "add", "help", "docs")[0] == 0
    api.status = 500
    code, out, err = tailor("knowledge", "search", "help", "return helmets", "--source", "shop")
    assert (code, out.count("[")) == (0, 1)
    assert "Left out: source shop: " in err
    assert "status 500" in err
    code, _, err = tailor("knowledge", "search", "return helmets", "--source", "shop")
    assert code != 0
    assert "none of the sources could be asked. source shop:" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("knowledge", "search", "gloves"), "Give a name and a question: tailor knowledge search NAME TEXT"),
        (
            ("knowledge", "search", "gloves", "--source", "desk"),
            "the source 'desk' is unknown. Known: shop, wikipedia, search_api, sql_query, mcp_tool. Give it a table",
        ),
        (
            ("customize", "--name", "x", "--steps", "knowledge", "--source", "desk"),
            "the source 'desk' is unknown",
        ),
        (
            ("customize", "--name", "x", "--steps", "knowledge", "--source", "search_api"),
            "Check the settings' names",
        ),
    ],
    ids=["no_text", "unknown", "customize", "unset"],
)
def test_what_cannot_be_asked_is_a_users_error(tailor, arguments, message):
    code, _, err = tailor(*arguments)
    assert code == 2
    assert message in err


def test_a_saved_model_asks_its_sources_and_keeps_no_key(tailor, api, endpoint, project):
    make = (
        "customize",
        "--name",
        "helper",
        "--steps",
        "knowledge",
        "--source",
        "shop",
        "--documents",
        "docs",
    )
    code, _, err = tailor(*make)
    assert code == 0, err
    assert api.asked == [], "a source was asked before there was a question"
    folder = project / ".tailorbird" / "models" / "helper"
    record = (folder / "model.json").read_text()
    assert '"kind": "search_api"' in record
    assert "$SHOP_KEY" in record
    assert not [path for path in folder.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    code, out, err = tailor("ask", "helper", "May gloves be returned?", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["text"] == "within 14 days"
    assert {passage["source"] for passage in answer["evidence"]} == {"", "shop"}
    assert answer["citations"][0]["quote"] == "Gloves may be returned within 14 days."
    assert api.queries == ["May gloves be returned?"]
    shown = json.dumps(endpoint.bodies[-1])
    assert "Gloves may be returned within 14 days." in shown
    assert "Helmets may be returned within 30 days." in shown
    code, out, _ = tailor("ask", "helper", "May gloves be returned?")
    assert "] shop: https://shop.example/gloves" in out


def test_a_models_answers_and_citations_are_measured(tailor, endpoint, project):
    assert tailor("knowledge", "add", "help", "docs")[0] == 0
    assert tailor("customize", "--name", "helper", "--steps", "knowledge", "--documents", "help")[0] == 0
    rows = [
        {"prompt": "May helmets be returned?", "completion": "within 30 days", "document": "helmets.md"},
        {"prompt": "May helmets be returned by a friend?", "completion": "Not in the documents."},
    ]
    (project / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate = ("knowledge", "evaluate", "help", "--examples", "asked.jsonl", "--model", "helper")
    endpoint.respond = lambda body: (200, said("within 30 days"))
    code, out, err = tailor(*evaluate)
    assert code == 0, err
    assert "helper answered 2 of 2 questions" in err
    assert re.search(r"^helper +of 2 questions$", out, re.MULTILINE)
    assert re.search(r"^citation recall +100\.0 \(", out, re.MULTILINE)
    code, out, _ = tailor(*evaluate, "--json")
    answers = json.loads(out)["answers"]
    assert (answers["score"]["mean"], answers["refused"]["mean"]) == (0.5, 0.0)
    assert answers["citation_precision"]["mean"] == 1.0
    code, _, err = tailor(*evaluate, "--sweep")
    assert (code, "-k and --model go with neither --sweep nor --tune" in err) == (2, True)


def test_an_answer_says_which_source_it_had_to_do_without(tailor, api):
    make = (
        "customize",
        "--name",
        "helper",
        "--steps",
        "knowledge",
        "--source",
        "shop",
        "--documents",
        "docs",
    )
    assert tailor(*make)[0] == 0
    api.status = 503
    code, out, _ = tailor("ask", "helper", "May helmets be returned?", "--json")
    answer = json.loads(out)
    assert code == 0
    assert [passage["document"] for passage in answer["evidence"]] == ["helmets.md"]
    assert answer["dropped"][0].startswith("source shop: ")
    assert "status 503" in answer["dropped"][0]


def test_a_model_whose_only_source_fails_gives_no_answer_but_an_error(tailor, api):
    assert tailor("customize", "--name", "helper", "--steps", "knowledge", "--source", "shop")[0] == 0
    code, out, _ = tailor("ask", "helper", "May gloves be returned?")
    assert (code, out.splitlines()[0]) == (0, "within 14 days [1]")
    forget_answers()
    api.status = 500
    code, out, err = tailor("ask", "helper", "May gloves be returned?")
    assert (code != 0, out) == (True, "")
    assert "none of the sources could be asked. source shop:" in err


def test_a_comparison_asks_each_question_once_and_again_only_where_settings_changed(
    tailor, api, endpoint, project
):
    things = (
        "helmets",
        "gloves",
        "a saddle",
        "brakes",
        "bells",
        "socks",
        "a pump",
        "old tyres",
        "a lamp",
        "a lock",
    )
    rows = [
        {"prompt": f"How long may I return {thing}?", "completion": f"{thing}: 14 days"} for thing in things
    ]
    (project / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    toml = project / "tailor.toml"
    toml.write_text(
        'examples = "asked.jsonl"\n'
        + toml.read_text()
        + '\n[knowledge]\nsources = ["shop"]\n\n[[arm]]\nname = "two"\n'
        + 'steps = [{technique = "knowledge", k = 3, threshold = -1.0}]\n'
    )
    code, out, _ = tailor("compare", "--arms", "knowledge,base", "--plan")
    assert (code, "asked live shop" in out) == (0, True)
    compare = ("compare", "--arms", "knowledge,two", "--json")
    code, out, err = tailor(*compare)
    assert code == 0, err
    arms = {arm["name"]: arm for arm in json.loads(out)["arms"]}
    assert set(arms) == {"knowledge", "two"}
    assert len(api.queries) == len(set(api.queries)) == 4, "dev's and test's questions, each once"
    runs = [
        json.loads(line) for path in project.rglob("test.jsonl") for line in path.read_text().splitlines()
    ]
    sources = {p["source"] for row in runs for p in row["completion"]["asked"]["evidence"]}
    assert sources == {"shop"}
    count = len(endpoint.bodies)
    assert tailor(*compare)[0] == 0
    assert len(endpoint.bodies) == count, "finished arms were run again"
    toml.write_text(toml.read_text().replace("n={k}", "n={k}&lang=en"))
    assert tailor(*compare)[0] == 0
    assert len(endpoint.bodies) > count
    assert len(api.queries) == 8
