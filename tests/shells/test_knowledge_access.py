"""Who may read what, and what vectors are kept in, by the command line."""

import json

import pytest

from tailorbird.cli import main

PAGES = {
    "faq/returns.md": "# Returns\n\nHelmets may be returned within 30 days.",
    "faq/opening.md": "# Opening hours\n\nThe shop opens at nine.",
}


@pytest.fixture
def knowledge(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder with pages for everyone, and a memo for the boss: (exit code, stdout, stderr)."""
    for name, text in {
        **{f"docs/{n}": t for n, t in PAGES.items()},
        "memos/pay.md": "The boss earns much.",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)

    def call(*arguments):
        code = main.run(["knowledge", *arguments])
        return code, *capsys.readouterr()

    assert call("add", "shop", "docs", "--tenant", "acme", "--fact", "kind=faq")[0] == 0
    assert call("add", "shop", "memos", "--tenant", "acme", "--access", "boss, board")[0] == 0
    return call


def found(knowledge, *options):
    code, out, err = knowledge("search", "shop", "Who earns what, and when does it open?", "--json", *options)
    assert code == 0, err
    return {row["document"] for row in json.loads(out)}


FAQ, ALL = {"faq/returns.md", "faq/opening.md"}, {"faq/returns.md", "faq/opening.md", "pay.md"}


def test_a_search_finds_what_its_reader_may_read_and_asks_for(knowledge):
    assert found(knowledge) == ALL
    assert found(knowledge, "--tenant", "acme") == FAQ
    assert found(knowledge, "--tenant", "acme", "--group", "staff", "--group", "board") == ALL
    assert found(knowledge, "--tenant", "globex", "--group", "boss") == set()
    assert found(knowledge, "--group", "boss") == set()
    assert found(knowledge, "--fact", "kind=faq") == FAQ
    assert found(knowledge, "--fact", "kind=memo") == set()
    assert found(knowledge, "--documents", "*opening*") == {"faq/opening.md"}


def test_other_rules_of_a_place_take_effect_and_embed_nothing(knowledge):
    code, out, _ = knowledge("add", "shop", "memos", "--access", "")
    assert code == 0
    assert "1 unchanged" in out
    assert "access     1 documents given other rules" in out
    assert "0 embedded" in out
    assert found(knowledge, "--tenant", "acme") == ALL
    code, out, _ = knowledge("list", "--json")
    rules = [(o["tenant"], o["access"], o["facts"]) for o in json.loads(out)[0]["origins"]]
    assert rules == [("acme", [], [["kind", "faq"]]), ("acme", [], [])]
    assert knowledge("sync", "shop", "--json")[1].count('"ruled": 0') == 2


def test_what_vectors_and_words_are_kept_in_can_be_said(knowledge):
    pytest.importorskip("faiss")
    pytest.importorskip("tantivy")
    before = found(knowledge, "--tenant", "acme")
    code, out, err = knowledge("store", "shop", "faiss", "--words", "tantivy")
    assert code == 0, err
    assert "shop: faiss: 3 passages." in out
    assert "shop: tantivy: 3 passages." in out
    assert "shop: vectors faiss, words tantivy." in out
    assert found(knowledge, "--tenant", "acme") == before
    code, out, _ = knowledge("store", "shop", "--json")
    assert json.loads(out) == {"knowledge": "shop", "store": "faiss", "words": "tantivy", "done": []}
    code, out, _ = knowledge("store", "shop", "auto", "--words", "auto")
    assert "shop: vectors auto, words auto." in out
    assert found(knowledge) == ALL


def test_what_makes_no_sense_is_refused(knowledge):
    for arguments, message in {
        (
            "search",
            "shop",
            "x",
            "--fact",
            "kind",
        ): "--fact 'kind' is no fact; expected NAME=VALUE, such as kind=faq.",
        ("add", "shop", "docs", "--tenant", "a\nb"): "can't be a tenant, a group or a fact",
        ("store", "shop", "fais"): "vector store 'fais' is unknown. Known: auto, numpy, faiss",
        ("store", "shop", "qdrant"): "say where its server is, with --place URL",
        ("store", "shop", "--words", "x"): "keyword index 'x' is unknown",
    }.items():
        code, _, err = knowledge(*arguments)
        assert (code, message in err) == (2, True), err
    assert found(knowledge) == ALL
