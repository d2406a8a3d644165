"""Cuts texts by other splitters, in their own environment: spans of characters, as JSON after RESULT."""

import json
import sys
from pathlib import Path


def splitters(size):
    """Each splitter of a name: a function from a text to its pieces' (start, end), in characters."""
    from chonkie import RecursiveChunker, SentenceChunker, TokenChunker
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    def spans_of_chonkie(chunker):
        return lambda text: [(c.start_index, c.end_index) for c in chunker.chunk(text)]

    def spans_of_semantic(splitter):
        return lambda text: [(start, start + len(piece)) for start, piece in splitter.chunk_indices(text)]

    return {
        "semantic-text-splitter": spans_of_semantic(TextSplitter(size)),
        "semantic-text-splitter, Markdown": spans_of_semantic(MarkdownSplitter(size)),
        "chonkie, recursive": spans_of_chonkie(RecursiveChunker(tokenizer="character", chunk_size=size)),
        "chonkie, sentences": spans_of_chonkie(SentenceChunker(tokenizer="character", chunk_size=size)),
        "chonkie, fixed": spans_of_chonkie(TokenChunker(tokenizer="character", chunk_size=size)),
    }


def main(job):
    """Reads {"texts": [files], "sizes": [characters]} and prints {size: {splitter: {file: spans}}}."""
    found = {}
    for size in job["sizes"]:
        for name, cut in splitters(size).items():
            for file in job["texts"]:
                text = Path(file).read_text("utf-8")
                found.setdefault(str(size), {}).setdefault(name, {})[Path(file).stem] = cut(text)
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
