"""As much of Ollama's Modelfile and of Go's templates as our Modelfiles use, to see what Ollama would make of them."""

import re
from dataclasses import dataclass, field

INSTRUCTION = re.compile(
    r"^(?P<word>FROM|ADAPTER|TEMPLATE|SYSTEM|PARAMETER|MESSAGE)(?: (?P<key>[a-z_]+)(?= ))? "
    r'(?P<value>"""(?:.*?)"""|[^\n]*)$',
    re.MULTILINE | re.DOTALL,
)
ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
WORD = re.compile(r'\(|\)|"(?:[^"\\]|\\.)*"|[^\s()]+')


@dataclass
class Modelfile:
    """What a Modelfile says."""

    model: str = ""
    adapter: str = ""
    template: str = ""
    system: str = ""
    parameters: list = field(default_factory=list)
    messages: list = field(default_factory=list)

    def prompt(self, *turns):
        """What the model is given for a conversation of (role, content), as Ollama's chat API makes it."""
        shown = [*self.messages, *turns]
        if self.system and not any(role == "system" for role, _ in turns):
            shown = [("system", self.system), *shown]
        return render(self.template, [{"Role": role, "Content": content} for role, content in shown])


def read_modelfile(text):
    found = Modelfile()
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    at = 0
    for match in INSTRUCTION.finditer(text):
        assert text[at : match.start()].strip() == "", f"not understood: {text[at : match.start()]!r}"
        at = match.end()
        value = match["value"]
        value = value[3:-3] if value.startswith('"""') else value.strip('"')
        match match["word"]:
            case "FROM":
                found.model = value
            case "ADAPTER":
                found.adapter = value
            case "TEMPLATE":
                found.template = value
            case "SYSTEM":
                found.system = value
            case "PARAMETER":
                found.parameters.append((match["key"], value))
            case "MESSAGE":
                found.messages.append((match["key"], value))
    assert text[at:].strip() == ""
    return found


def render(template, messages):
    """Go's text/template with `range .Messages`, `if`, `and`, `eq` and `ne`."""
    nodes, _ = _parse(_pieces(template), 0)
    return _run(nodes, {".Messages": messages})


def _pieces(template):
    """Texts and actions by turns; `-` at an action's edge eats the blanks next to it."""
    pieces, at, eat = [], 0, False
    for match in ACTION.finditer(template):
        text = template[at : match.start()]
        text = text.lstrip() if eat else text
        pieces += [("text", text.rstrip() if match[1] else text), ("action", match[2])]
        at, eat = match.end(), bool(match[3])
    return [*pieces, ("text", template[at:].lstrip() if eat else template[at:])]


def _parse(pieces, at):
    nodes = []
    while at < len(pieces):
        kind, value = pieces[at]
        at += 1
        if kind == "text":
            nodes.append(("text", value))
        elif value == "end":
            return nodes, at
        elif value.split()[0] in ("range", "if"):
            word, rest = value.split(maxsplit=1)
            inner, at = _parse(pieces, at)
            nodes.append((word, rest, inner))
        else:
            nodes.append(("value", value))
    return nodes, at


def _run(nodes, scope):
    out = []
    for node in nodes:
        match node:
            case ("text", text):
                out.append(text)
            case ("value", expression):
                out.append(str(_value(expression, scope)))
            case ("if", condition, inner):
                out.append(_run(inner, scope) if _value(condition, scope) else "")
            case ("range", what, inner):
                names, _, listed = what.rpartition(":= ")
                index = names.split(",")[0].strip()
                for number, item in enumerate(scope[listed.strip()]):
                    fields = {f".{key}": value for key, value in item.items()}
                    out.append(_run(inner, {**scope, **fields, **({index: number} if index else {})}))
    return "".join(out)


def _value(expression, scope):
    words = WORD.findall(expression)
    value, rest = _call(words, scope)
    assert rest == [], f"not understood: {expression!r}"
    return value


def _call(words, scope):
    """A function with its arguments, or one operand; the value and the words after it."""
    if words[0] not in ("and", "eq", "ne"):
        return _operand(words, scope)
    function, rest, arguments = words[0], words[1:], []
    while rest and rest[0] != ")":
        argument, rest = _operand(rest, scope)
        arguments.append(argument)
    result = {
        "and": lambda: all(arguments),
        "eq": lambda: arguments[0] == arguments[1],
        "ne": lambda: arguments[0] != arguments[1],
    }
    return result[function](), rest


def _operand(words, scope):
    first, rest = words[0], words[1:]
    if first == "(":
        value, rest = _call(rest, scope)
        assert rest[0] == ")"
        return value, rest[1:]
    if first.startswith('"'):
        return first[1:-1], rest
    if first.isdigit():
        return int(first), rest
    return scope[first], rest
