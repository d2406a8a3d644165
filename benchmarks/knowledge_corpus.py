"""A corpus of up to a million passages with vectors, for measuring search: real ones, and mixtures of real ones.

The real part is documentation, abstracts, articles and prose from the shared data, cut and embedded as everywhere
else. No such corpus has a million passages, so the rest is mixed: each is a real passage p and one q of its 16
nearest neighbours. Its vector is theirs, weighted at random, with noise; its text is sentences of both. So
neighbourhoods and words are real ones, and denser than the corpus itself; the questions are real and not mixed.
"""

import csv
import json
import tarfile
from pathlib import Path

import numpy as np

from tailorbird.data.documents import read_folder
from tailorbird.data.passages import split_document
from tailorbird.records import Document
from tailorbird.sources.embedder import default_embedder

SEED = 5
NEIGHBOURS = 16
NOISE = 0.3
"""Length of the random vector that is added to a mixed unit vector."""
EMBED_CHARS = 400
"""A passage's length; short ones make more of them in the same time."""


def real_texts(shared, limit):
    """Passages of the shared data as texts, spread over all of them, each once."""
    found = [*_abstracts(shared), *_prose(shared), *_documentation(shared)]
    texts = list(dict.fromkeys(text for text in found if len(text) > 80))
    chosen = np.random.default_rng(SEED).permutation(len(texts))[:limit]
    return [texts[i] for i in sorted(chosen)]


def questions(shared):
    """Real questions: SciFact's claims and those of chunking_eval."""
    lines = (shared / "scifact/queries.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line)["text"] for line in lines]
    with (shared / "chunking_eval/questions_df.csv").open(encoding="utf-8", newline="") as file:
        found += [row["question"] for row in csv.DictReader(file)]
    return list(dict.fromkeys(found))


def embedded(texts, folder, name):
    """Their vectors, float32 [N, 384], kept in a file; what was done before an interruption is kept."""
    path = folder / f"{name}.npy"
    done = np.load(path) if path.is_file() else np.empty((0, 384), np.float32)
    embedder = default_embedder()
    while len(done) < len(texts):
        done = np.concatenate([done, embedder.embed(texts[len(done) : len(done) + 2000])])
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, done)
        temporary.replace(path)
    return done


def mixtures(vectors, count, seed=SEED):
    """Which real passages are mixed, [N] and [N], and the share of the first, [N]."""
    random = np.random.default_rng(seed)
    first = random.integers(0, len(vectors), count)
    second = nearest(vectors)[first, random.integers(0, NEIGHBOURS, count)]
    return first, second, random.uniform(0.5, 1.0, count).astype(np.float32)


def mixed_vectors(vectors, first, second, share, seed):
    """Unit vectors, float32 [N, D], of mixtures."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((len(first), vectors.shape[1]), dtype=np.float32)
    made = share[:, None] * vectors[first] + (1 - share[:, None]) * vectors[second]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    made += NOISE / np.sqrt(vectors.shape[1]) * noise
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def mixed_text(one, other, number):
    """Sentences of two passages in turn; the number makes it one of its kind."""
    halves = one.split(". ")[::2] + other.split(". ")[1::2]
    return f"{'. '.join(halves)} Note {number}."


def nearest(vectors):
    """The 16 nearest neighbours of every vector, int32 [N, 16], itself left out."""
    found = np.empty((len(vectors), NEIGHBOURS), np.int32)
    for begin in range(0, len(vectors), 500):
        similarity = vectors[begin : begin + 500] @ vectors.T
        rows = np.arange(len(similarity))
        similarity[rows, begin + rows] = -1
        found[begin : begin + 500] = np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return found


def _abstracts(shared):
    for line in (shared / "scifact/corpus.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        yield from _passages(row["text"], row["title"])


def _prose(shared):
    for path in sorted((shared / "chunking_eval").glob("*.md")):
        yield from _passages(path.read_text("utf-8"), path.stem)


def _documentation(shared):
    unpacked = Path("build/bench/knowledge/aws_docs")
    if not unpacked.is_dir():
        with tarfile.open(shared / "aws_docs/aws_docs.tar.xz") as archive:
            archive.extractall(unpacked, filter="data")
    for document in read_folder(unpacked):
        if isinstance(document, Document):
            yield from _passages(document.text, document.title)


def _passages(text, title):
    return (p.text for p in split_document(Document("-", text, title), max_chars=EMBED_CHARS))
