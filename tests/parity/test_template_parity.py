"""Our chat template gives the very tokens that the tokenizer's own template gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.errors import NotFound
from tailorbird.models.chat_template import ChatTemplate
from tailorbird.models.gguf_file import starter_file
from tailorbird.models.local import open_local
from tailorbird.records import Message, Request
from tailorbird.testing.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
OTHER_TEMPLATES = {
    "chatml": TOKENIZER.chat_template,
    "llama_2": (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
        "{% elif m['role'] == 'system' %}<<SYS>>\n{{ m['content'] | trim }}\n<</SYS>>\n\n"
        "{% else %} {{ m['content'] | trim }}<|im_end|>{% endif %}{% endfor %}"
    ),
    "with_a_default_system_message": (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        + TOKENIZER.chat_template
    ),
}
CONVERSATIONS = {
    "user": [("user", "Where is my parcel?")],
    "system_and_user": [("system", "Be kind."), ("user", "What's up, doc?")],
    "many_turns": [
        ("system", "Be brief."),
        ("user", "My bike is broken."),
        ("assistant", "Which part?"),
        ("user", "The brake, 2 of them!"),
    ],
}


def both(tokenizer, turns):
    ours = ChatTemplate(tokenizer, 512).prompt(Request(tuple(Message(*turn) for turn in turns))).ids
    chat = [{"role": role, "content": content} for role, content in turns]
    theirs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    return list(ours), list(theirs)


@pytest.mark.parametrize("template", OTHER_TEMPLATES.values(), ids=OTHER_TEMPLATES.keys())
@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_plain_content_becomes_the_tokens_of_the_tokenizers_template(turns, template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    ours, theirs = both(tokenizer, turns)
    assert ours == theirs


words = st.from_regex(r"[A-Za-zé東][A-Za-z0-9 ,.!?é東\n]{0,40}[a-z.!]", fullmatch=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(words, words), max_size=3), words)
def test_any_plain_conversation_becomes_the_same_tokens(exchanges, last):
    turns = [t for said, answered in exchanges for t in (("user", said), ("assistant", answered))]
    ours, theirs = both(TOKENIZER, [*turns, ("user", last)])
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_the_starter_models_template_gives_the_same_tokens(turns):
    try:
        starter_file()
    except NotFound as error:
        pytest.skip(str(error))
    ours, theirs = both(open_local("starter").engine.tokenizer, turns)
    assert ours == theirs
