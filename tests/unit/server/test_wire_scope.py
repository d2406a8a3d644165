import pytest

from tailorbird.records import Reader, Scope
from tailorbird.server.failures import Refusal
from tailorbird.server.wire import read_chat
from tailorbird.server.wire_scope import read_scope


def chat(value):
    return read_chat(
        {"model": "m", "messages": [{"role": "user", "content": "hello"}], "tailorbird": value}
    ).only


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        (None, None),
        ({}, None),
        ({"tenant": "acme"}, Scope(Reader("acme", ()))),
        ({"groups": []}, Scope(Reader("", ()))),
        ({"tenant": "acme", "groups": ["staff", "boss"]}, Scope(Reader("acme", ("staff", "boss")))),
        (
            {"facts": {"kind": ["faq", "note"], "year": "2026"}},
            Scope(None, (("kind", "faq"), ("kind", "note"), ("year", "2026"))),
        ),
        ({"documents": "faq/*"}, Scope(None, (), "faq/*")),
    ],
    ids=["none", "empty", "tenant", "no_groups", "groups", "facts", "documents"],
)
def test_a_request_says_for_whom_it_is_asked(value, scope):
    assert chat(value) == read_scope(value) == scope


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"tailorbird: got '\[\]'; expected an object with tenant, groups"),
        ("acme", "tailorbird: got 'acme'; expected an object"),
        ({"group": ["staff"]}, "tailorbird.group: not known. Known: tenant, groups, facts, documents"),
        ({"groups": "staff"}, "tailorbird.groups: got 'staff'; expected a list"),
        ({"groups": [1]}, "tailorbird.groups: got '1'; expected a text"),
        ({"groups": ["a"] * 101}, "expected a list of at most 100 texts"),
        ({"tenant": 3}, "tailorbird.tenant: got '3'; expected a text"),
        ({"tenant": "x" * 1001}, "expected a text of at most 1000 characters"),
        ({"facts": ["kind"]}, "tailorbird.facts: got .* expected an object such as"),
        ({"facts": {"kind": []}}, "tailorbird.facts.kind: got .* a name with a text or a list of texts"),
        ({"facts": {"": "faq"}}, "a name with a text"),
        ({"facts": {"kind": 3}}, "tailorbird.facts.kind: got '3'; expected a list"),
        ({"documents": ["faq/*"]}, "tailorbird.documents: got"),
        ({"tenant": None}, "tailorbird.tenant: got 'None'; expected a text"),
        ({"groups": None}, "tailorbird.groups: got 'None'; expected a list"),
        ({"facts": None}, "tailorbird.facts: got 'None'"),
        ({"documents": None}, "tailorbird.documents: got 'None'"),
        ({"documents": False}, "tailorbird.documents: got 'False'"),
        ({"tenant": "\udc00"}, "tailorbird.tenant: got"),
        ({"groups": ["a\nb"]}, "tailorbird.groups: got"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:30],
)
def test_what_is_no_scope_is_refused_and_never_guessed(value, message):
    with pytest.raises(Refusal, match=message) as caught:
        chat(value)
    assert caught.value.failure.param == "tailorbird"


def test_an_answer_with_annotations_can_be_sent_back():
    ours = {
        "role": "assistant",
        "content": "5 €.",
        "annotations": [{"type": "url_citation"}],
        "tailorbird": {},
    }
    turns = [{"role": "user", "content": "a"}, ours, {"role": "user", "content": "b"}]
    assert len(read_chat({"model": "m", "messages": turns}).messages) == 3
