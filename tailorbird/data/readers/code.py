"""The reader of source code: fenced blocks that passages are cut between."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tailorbird.data.markup import fenced
from tailorbird.data.readers.content import Content, Limits, clean_text, decoded

LANGUAGES = {
    ".bash": "bash",
    ".c": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cs": "csharp",
    ".css": "css",
    ".go": "go",
    ".h": "c",
    ".hpp": "cpp",
    ".ini": "ini",
    ".java": "java",
    ".jl": "julia",
    ".js": "javascript",
    ".jsx": "jsx",
    ".kt": "kotlin",
    ".lua": "lua",
    ".mjs": "javascript",
    ".php": "php",
    ".proto": "protobuf",
    ".ps1": "powershell",
    ".py": "python",
    ".pyi": "python",
    ".r": "r",
    ".rb": "ruby",
    ".rs": "rust",
    ".scala": "scala",
    ".sh": "bash",
    ".sql": "sql",
    ".swift": "swift",
    ".toml": "toml",
    ".ts": "typescript",
    ".tsx": "tsx",
    ".xml": "xml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
"""How each kind's language is called behind a fence."""

# at the margin, but the end of what stands above
_ENDING = re.compile(r"[})\]]|(?:end|else|elif|except|finally|catch)\b")


def code_reader(language: str) -> Callable[[bytes, Limits], Content]:
    """A reader of files in this language."""

    def read(data: bytes, _limits: Limits) -> Content:
        return read_code(data, language)

    return read


def read_code(data: bytes, language: str) -> Content:
    """The file in fenced blocks, one for each definition at the margin and for what stands between them.

    Lines, their order and their indents stay as they are, without empty lines between blocks. It knows
    no language: a definition is what follows an empty line, begins at the margin and has something
    indented in it.

    Raises:
        DocumentError: It is not UTF-8.
    """
    blocks = _blocks(clean_text(decoded(data)).split("\n"))
    return Content("\n\n".join(filter(None, (fenced("\n".join(block), language) for block in blocks))))


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Definitions alone, and what stands between two of them together."""
    between: list[str] = []
    for paragraph in _paragraphs(lines):
        if any(line[:1] in {" ", "\t"} for line in paragraph):
            if between:
                yield between
            yield paragraph
            between = []
        else:
            between += paragraph
    if between:
        yield between


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Cut before each line at the margin that follows an empty one."""
    paragraph: list[str] = []
    after_gap = False
    for line in lines:
        is_empty = not line.strip()
        at_margin = not is_empty and line[0] not in " \t" and not _ENDING.match(line)
        if at_margin and after_gap and paragraph:
            yield paragraph
            paragraph = []
        paragraph.append(line)
        after_gap = is_empty
    if paragraph:
        yield paragraph
