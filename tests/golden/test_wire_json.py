"""The wire JSON, word for word: what clients and scripts rely on."""

import json
from dataclasses import replace
from pathlib import Path

from tailorbird.data.citing import cited, support_for
from tailorbird.records import Completion, Message, Passage, Request, Usage
from tailorbird.server.response_format import ClosedSet
from tailorbird.server.wire_answers import (
    Head,
    chat_completion,
    content_chunk,
    event,
    final_chunk,
    model_object,
    role_chunk,
    usage_chunk,
)

GOLDEN = Path(__file__).parent / "wire.json"
HEAD = Head("chatcmpl-1", 1_700_000_000, "bank-help", "fp_0123456789", "starter + knowledge")
PASSAGE = Passage("p1", "fees.md", "A card costs 5 €.", "Fees", ("Cards",), 10, 27, 2, "v1", 0.75)
ASKED = Request((Message("user", "How much?"),), evidence=(PASSAGE,))


def rests(completion):
    return cited(completion, support_for(completion))


FREE = rests(
    Completion("5 €", "length", Usage(120, 3, 100), 0.5, None, ASKED, ("evidence p9: context full",))
)
PAGE = replace(PASSAGE, document="https://shop.example/fees")
OF_A_PAGE = rests(Completion("5 €.", asked=replace(ASKED, evidence=(PAGE,))))
WITHHELD = Completion("Not in the documents.", asked=ASKED, support=0.1, withheld="Nine.")
CHOSEN = Completion("b", "choice", Usage(40, 2), probabilities={"a": 0.25, "b": 0.75})


def written():
    return {
        "free answer": chat_completion(HEAD, FREE, None),
        "answer from a web page": chat_completion(HEAD, OF_A_PAGE, None),
        "withheld": chat_completion(HEAD, WITHHELD, None),
        "label": chat_completion(HEAD, CHOSEN, None),
        "label in an object": chat_completion(HEAD, CHOSEN, ClosedSet(("a", "b"), "label")),
        "outside the labels": chat_completion(HEAD, Completion("c", valid=False), None),
        "stream": [
            role_chunk(HEAD),
            content_chunk(HEAD, "5 €"),
            final_chunk(HEAD, FREE),
            usage_chunk(HEAD, FREE),
        ],
        "stream from a web page": [final_chunk(HEAD, OF_A_PAGE)],
        "stream without a record": [final_chunk(HEAD, None), usage_chunk(HEAD, None)],
        "model": model_object("bank-help", 1_700_000_000),
    }


def test_the_wire_json_is_word_for_word_the_golden_one():
    assert written() == json.loads(GOLDEN.read_text())


def test_an_event_is_one_line_of_utf8():
    assert event({"a": "€\n"}) == 'data: {"a":"€\\n"}\n\n'.encode()
