"""An Ollama Modelfile: the chat template as a Go template, stop tokens, and how the model was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tailorbird.errors import InputError
from tailorbird.models.model import Model, as_seen_by_weights
from tailorbird.records import Message, Request, Role

if TYPE_CHECKING:
    from tailorbird.data.task import Task
    from tailorbird.models.chat_template import ChatTemplate
    from tailorbird.models.local import LocalWeights

START, END = "<|im_start|>", "<|im_end|>\n"
ANSWER = f"{START}assistant\n"
ROLES: tuple[tuple[Role, ...], ...] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)
"""Conversations that tell whether a template is ChatML."""
PROBES = ("a parcel", "something quite different")
"""Two requests: what a wrapper puts before both alike, it puts before every request."""
QUOTES = '"""'


def write_modelfile(
    weights: LocalWeights, model: Model, task: Task | None, gguf: str, adapter: str | None = None
) -> tuple[str | None, str]:
    """The Modelfile's text, or None, and a sentence about it.

    None where the chat template is not of the ChatML family: a template is never guessed.
    """
    template = weights.engine.template
    system = chatml_default(template)
    if system is None:
        return None, (
            "There is no Modelfile: the chat template is not of the ChatML family, and a Go template for it would be a "
            "guess. The .gguf file carries the template itself; llama.cpp's server uses it."
        )
    if task is not None and as_seen_by_weights(model, task.request([Message("user", "")])).layout == "plain":
        return None, (
            "There is no Modelfile: the metaprompt lays a conversation out plainly, which a chat template does not."
        )
    before = shown_before_all(model, task)
    if any(QUOTES in text for text in (system, *(m.content for m in before))) or "{{" in system:
        return (
            None,
            f"There is no Modelfile: a text that it would hold contains {QUOTES} or {{{{, which it cannot.",
        )
    settings = ["temperature 0", "repeat_penalty 1", f"num_ctx {template.context}"]
    if task is not None and task.kind == "answer":
        settings.append(f"num_predict {task.max_tokens}")
    tokens = weights.engine.tokenizer.convert_ids_to_tokens(sorted(template.stop_ids))
    lines = [
        "# ollama create NAME -f Modelfile",
        f"FROM ./{gguf}",
        *([f"ADAPTER ./{adapter}"] if adapter else []),
        f"TEMPLATE {QUOTES}{go_template(system)}{QUOTES}",
        *(f'PARAMETER stop "{token}"' for token in tokens),
        "# Greedy, as it was measured; Ollama's own defaults sample and punish repetition.",
        *(f"PARAMETER {setting}" for setting in settings),
        *(_line(message) for message in before),
    ]
    sentence = "The Modelfile carries the chat template, stop tokens and the task's instruction."
    if len(before) > 1:
        sentence = (
            f"The Modelfile also carries the {(len(before) - 1) // 2} examples that precede every request."
        )
    if adapter:
        sentence += (
            " It joins both files by ADAPTER; where Ollama refuses that, export as q8_0, which is one file."
        )
    return "\n".join(lines) + "\n", sentence


def chatml_default(template: ChatTemplate) -> str | None:
    """The system text that a ChatML template puts where none is given, '' for none; None if it is not ChatML."""
    try:
        alone = template.text_of((Message("user", "\ue002"),))
        turn = f"{START}user\n\ue002{END}{ANSWER}"
        default = alone.removesuffix(turn)
        if default == alone or not (default == "" or _is_system_turn(default)):
            return None
        for roles in ROLES:
            messages = tuple(Message(role, f"{role} {number}") for number, role in enumerate(roles))
            if template.text_of(messages) != chatml(messages, default):
                return None
    except InputError:  # the template refuses a role
        return None
    return default.removeprefix(f"{START}system\n").removesuffix(END)


def chatml(messages: Sequence[Message], default: str) -> str:
    """A conversation in ChatML, up to where the answer begins; `default` precedes one without a system text."""
    turns = "".join(f"{START}{m.role}\n{m.content}{END}" for m in messages)
    return ("" if messages[0].role == "system" else default) + turns + ANSWER


def go_template(system: str) -> str:
    """ChatML in the language of Ollama's templates; `system` is the default system text, or ''.

    >>> print(go_template(""))
    {{ range .Messages }}<|im_start|>{{ .Role }}
    {{ .Content }}<|im_end|>
    {{ end }}<|im_start|>assistant
    <BLANKLINE>
    """
    turn = f"{START}{{{{ .Role }}}}\n{{{{ .Content }}}}{END}"
    if not system:
        return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}{ANSWER}"
    first = '{{ if and (eq $i 0) (ne .Role "system") }}' + f"{START}system\n{system}{END}" + "{{ end }}"
    return f"{{{{ range $i, $_ := .Messages }}}}{first}{turn}{{{{ end }}}}{ANSWER}"


def shown_before_all(model: Model, task: Task | None) -> tuple[Message, ...]:
    """What precedes every request alike: the instruction, and a metaprompt that is the same for all."""
    if task is None:
        return ()
    asked = [task.request([Message("user", text)]) for text in PROBES]
    seen = [as_seen_by_weights(model, request) for request in asked]
    if _beginning(seen[0]) == _beginning(seen[1]) and not any(r.evidence for r in seen):
        return _beginning(seen[0])
    return tuple(m for m in asked[0].messages if m.role == "system")


def _beginning(request: Request) -> tuple[Message, ...]:
    return request.conversation[:-1]


def _is_system_turn(text: str) -> bool:
    inner = text.removeprefix(f"{START}system\n").removesuffix(END)
    return len(inner) == len(text) - len(f"{START}system\n{END}") and START not in inner


def _line(message: Message) -> str:
    keyword = "SYSTEM" if message.role == "system" else f"MESSAGE {message.role}"
    return f"{keyword} {QUOTES}{message.content}{QUOTES}"
