"""The Modelfile's template gives, byte for byte, what our chat template gives."""

from dataclasses import replace

import pytest
from ollama_files import read_modelfile, render

from tailorbird.models.engine import Engine
from tailorbird.models.exports.modelfile import chatml_default, go_template, write_modelfile
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import as_seen_by_weights
from tailorbird.records import Message
from tailorbird.techniques.few_shot import FewShot
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_questions

CHATML = tiny_model().engine.tokenizer.chat_template
DEFAULT = "You are a helpful bird,\n named {Tailor}."
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    + DEFAULT
    + "<|im_end|>\n{% endif %}"
    + CHATML
)
LLAMA_2 = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
CONVERSATIONS = {
    "user": [("user", "Where is my parcel?")],
    "odd_text": [("user", '  {{ .Role }} """ <b>é東</b>\n\n')],
    "system_and_user": [("system", "Be kind."), ("user", "What's up, doc?")],
    "many_turns": [
        ("system", "Be brief."),
        ("user", "Help!"),
        ("assistant", "Which part?"),
        ("user", "It's 2.\n"),
    ],
    "many_turns_without_system": [("user", "Help!"), ("assistant", ""), ("user", "So?")],
}


def with_template(template):
    tiny = tiny_model()
    tiny.engine.tokenizer.chat_template = template
    return LocalWeights("tiny", Engine(tiny.engine.model, tiny.engine.tokenizer))


def tokenizers_own(weights, turns):
    chat = [{"role": role, "content": content} for role, content in turns]
    return weights.engine.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize("template", [CHATML, WITH_DEFAULT], ids=["plain", "with_a_default_system_text"])
@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_a_conversation_becomes_the_text_that_the_chat_template_makes(template, turns):
    weights = with_template(template)
    text, _ = write_modelfile(weights, weights, None, "tiny.gguf")
    expected = weights.engine.template.text_of([Message(*turn) for turn in turns])
    assert expected == tokenizers_own(weights, turns)
    assert read_modelfile(text).prompt(*turns) == expected


@pytest.mark.parametrize("data", [tiny_data(), tiny_questions()], ids=["labels", "answers"])
def test_a_bare_message_becomes_what_was_measured(data):
    weights = tiny_model()
    text, _ = write_modelfile(weights, weights, data.task, "tiny.gguf")
    modelfile = read_modelfile(text)
    assert modelfile.model == "./tiny.gguf"
    assert modelfile.system == data.task.instruction
    for example in data.test:
        asked = weights.engine.template.messages(data.task.ask(example))
        assert modelfile.prompt(("user", example.prompt)) == weights.engine.template.text_of(asked)


def test_an_adapter_is_named_beside_its_base():
    weights = tiny_model()
    text, sentence = write_modelfile(weights, weights, None, "t-base.gguf", "t-adapter.gguf")
    modelfile = read_modelfile(text)
    assert (modelfile.model, modelfile.adapter) == ("./t-base.gguf", "./t-adapter.gguf")
    assert "It joins both files by ADAPTER; where Ollama refuses that, export as q8_0" in sentence
    assert "ADAPTER" not in "".join(write_modelfile(weights, weights, None, "t.gguf"))


def test_stop_tokens_and_greedy_settings_are_written():
    data = tiny_questions()
    weights = tiny_model()
    parameters = read_modelfile(write_modelfile(weights, weights, data.task, "t.gguf")[0]).parameters
    assert [value for key, value in parameters if key == "stop"] == ["<|im_end|>"]
    assert dict(parameters)["temperature"] == "0"
    assert dict(parameters)["repeat_penalty"] == "1"
    assert dict(parameters)["num_ctx"] == "512"
    assert dict(parameters)["num_predict"] == str(data.task.max_tokens)


def test_a_metaprompt_that_is_always_the_same_comes_along():
    data, weights = tiny_data(), tiny_model()
    model = FewShot(k=2, select="fixed", instruction="Choose!").apply(weights, data)
    text, sentence = write_modelfile(weights, model, data.task, "t.gguf")
    modelfile = read_modelfile(text)
    assert "2 examples" in sentence
    assert (modelfile.system, len(modelfile.messages)) == ("Choose!", 4)
    request = as_seen_by_weights(model, data.task.request([Message("user", "my fork broke")]))
    assert modelfile.prompt(("user", "my fork broke")) == weights.engine.template.text_of(
        request.conversation
    )


def test_a_metaprompt_that_differs_from_request_to_request_does_not(monkeypatch):
    from tailorbird.testing.sources import WordHash

    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)
    data, weights = tiny_data(), tiny_model()
    model = FewShot(k=2, select="nearest").apply(weights, data)
    text, _ = write_modelfile(weights, model, data.task, "t.gguf")
    assert read_modelfile(text).messages == []
    assert read_modelfile(text).system == data.task.instruction


@pytest.mark.parametrize(
    "template", [None, LLAMA_2, CHATML.replace("<|im_start|>assistant", "<|im_start|>bird"), CHATML + "Now:"]
)
def test_a_template_of_another_family_is_refused_and_never_guessed(template):
    weights = with_template(template)
    assert chatml_default(weights.engine.template) is None
    text, sentence = write_modelfile(weights, weights, None, "t.gguf")
    assert text is None
    assert sentence.startswith("There is no Modelfile: the chat template is not of the ChatML family")


def test_a_text_that_a_modelfile_cannot_hold_leaves_it_out():
    weights = tiny_model()
    task = replace(tiny_data().task, instruction='Say """label""".')
    text, sentence = write_modelfile(weights, weights, task, "t.gguf")
    assert text is None
    assert '"""' in sentence


def test_the_renderer_tells_templates_apart():
    messages = [{"Role": "user", "Content": "a"}, {"Role": "user", "Content": "b"}]
    assert render("{{ range .Messages }}<{{ .Content }}>{{ end }}.", messages) == "<a><b>."
    first = '{{ if and (eq $i 0) (ne .Role "system") }}! {{- end }}'
    first = "{{ range $i, $_ := .Messages }}" + first + "{{ .Content }}{{ end }}"
    assert render(first, messages) == "!ab"
    assert go_template("") != go_template("x")
