import json
from dataclasses import dataclass

import numpy as np
import pytest

from tailorbird.errors import IntegrityError, NotFound
from tailorbird.records import Document, Passage
from tailorbird.sources.bm25 import words
from tailorbird.sources.cross_encoder import CrossEncoder
from tailorbird.sources.embedder import MiniLM
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.knowledge_base import reranker_of
from tailorbird.sources.late_interaction import LateInteraction, TokenEmbedder
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.reranking import Reranker, reranked
from tailorbird.testing.sources import ODD_QUERIES, WordHash, check_reranker, check_source

WORDS = (
    "how",
    "long",
    "is",
    "the",
    "code",
    "valid",
    "days",
    "twelve",
    "bikes",
    "must",
    "not",
    "be",
    "posted",
)
PASSAGES = [
    Passage(str(n), "d.md", text) for n, text in enumerate(("bikes must not be posted", "the code", "days"))
]


@dataclass(frozen=True)
class Longest:
    """Prefers long passages."""

    name: str = "longest"
    trust: float = 1.0

    def scores(self, query, passages):
        return [float(len(passage.text)) for passage in passages]


class HashedTokens:
    """A vector of every word, in no time."""

    name = "hashed"

    def token_vectors(self, text):
        found = words(text)
        return WordHash().embed(found) if found else np.zeros((0, 64), dtype=np.float32)


def cross_encoder_folder(
    folder, *, outputs=1, inputs=("input_ids", "attention_mask", "token_type_ids"), seed=0
):
    """A tiny cross-encoder with random weights: its score is a linear function of the mean token vector."""
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(("[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    random = np.random.default_rng(seed)
    weights = {
        "vectors": random.normal(size=(len(vocabulary), 8)).astype(np.float32),
        "out": random.normal(size=(8, outputs)).astype(np.float32),
        "axis": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["embedded"]),
        helper.make_node("ReduceMean", ["embedded", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "out"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "T"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, outputs])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (folder / "onnx").mkdir(exist_ok=True)
    (folder / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    return folder, weights, tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return cross_encoder_folder(tmp_path_factory.mktemp("cross") / "tiny")


@pytest.fixture(scope="module")
def late():
    return LateInteraction(MiniLM(threads=1))


def test_a_cross_encoder_scores_question_and_passage_together(tiny):
    folder, weights, tokenizer = tiny
    encoder = CrossEncoder(str(folder))
    assert isinstance(encoder, Reranker)
    found = encoder.scores("how long is the code valid", PASSAGES)
    for score, passage in zip(found, PASSAGES, strict=True):
        ids = tokenizer.encode("how long is the code valid", passage.text).ids
        assert score == pytest.approx(float((weights["vectors"][ids].mean(0) @ weights["out"])[0]), abs=1e-5)


def test_a_cross_encoder_may_need_fewer_inputs_and_give_two_outputs(tmp_path):
    folder, weights, tokenizer = cross_encoder_folder(tmp_path / "two", outputs=2, inputs=("input_ids",))
    both = weights["vectors"][tokenizer.encode("days", "the code").ids].mean(0) @ weights["out"]
    assert CrossEncoder(str(folder)).scores("days", PASSAGES[1:2])[0] == pytest.approx(
        both[1] - both[0], abs=1e-5
    )


def test_rerankers_keep_to_their_contract(tiny):
    check_reranker(CrossEncoder(str(tiny[0])))
    check_reranker(LateInteraction(HashedTokens()))
    check_reranker(Longest())


def test_any_question_is_read_by_token(late):
    for query in ODD_QUERIES:
        assert np.isfinite(late.scores(query, PASSAGES)).all()


def test_a_cross_encoder_of_the_hub_is_found_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotFound, match=r"not in the hub's cache .* hf download org/tiny tokenizer.json"):
        CrossEncoder("hf:org/tiny")
    kept = tmp_path / "models--org--tiny"
    cross_encoder_folder(kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert CrossEncoder("hf:org/tiny").scores("days", PASSAGES)


def test_what_is_no_cross_encoder_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"there is no such folder. Name a folder, or hf:org/name"):
        CrossEncoder(str(tmp_path / "absent"))
    with pytest.raises(
        NotFound, match=r"expected a cross-encoder's tokenizer.json and model.onnx.*optimum-cli"
    ):
        CrossEncoder(str(tmp_path))
    folder, _, _ = cross_encoder_folder(tmp_path / "three", outputs=3)
    with pytest.raises(IntegrityError, match="gives 3 numbers for a pair; expected one, or two"):
        CrossEncoder(str(folder)).scores("days", PASSAGES)
    folder, _, _ = cross_encoder_folder(tmp_path / "pixels", inputs=("input_ids", "pixels"))
    with pytest.raises(IntegrityError, match="its inputs are input_ids, pixels; expected some of"):
        CrossEncoder(str(folder))
    (folder / "onnx" / "model.onnx").write_bytes(b"no network")
    with pytest.raises(IntegrityError, match="can't be loaded as a network"):
        CrossEncoder(str(folder))


def test_late_interaction_matches_every_token_of_the_question(late):
    assert isinstance(late.embedder, TokenEmbedder)
    query, text = (
        late.embedder.token_vectors("How long is a code valid?"),
        "The code is valid for twelve days.",
    )
    similar = query @ late.embedder.token_vectors(text).T
    assert late.scores("How long is a code valid?", [Passage("1", "d", text)])[0] == pytest.approx(
        float(similar.max(axis=1).mean()), abs=1e-5
    )
    fit, other = late.scores("How long is a code valid?", [Passage("1", "d", text), PASSAGES[0]])
    assert fit > other + 0.1


def test_token_vectors_are_those_that_the_embedder_averages():
    minilm = MiniLM(threads=1, int8=False)
    tokens = minilm.token_vectors("freeze the card")
    assert tokens.shape == (3, 384)
    assert np.linalg.norm(tokens, axis=1) == pytest.approx(1, abs=1e-5)
    assert minilm.token_vectors("word " * 700).shape == (254, 384)
    assert minilm.embed(["freeze the card"])[0] @ tokens.mean(axis=0) > 0.5


def test_trust_weighs_the_reranker_against_the_index():
    found = [1.0, 0.6, 0.0]
    assert [p.id for p in reranked(Longest(), "q", PASSAGES, found)] == ["0", "1", "2"]
    assert [p.id for p in reranked(Longest(), "q", PASSAGES[::-1], found)] == ["0", "1", "2"]
    assert [p.id for p in reranked(Longest(trust=0.1), "q", PASSAGES[::-1], found)] == ["2", "1", "0"]
    assert reranked(Longest(), "q", [], []) == []


class Listing:
    name, complete = "listing", True

    def documents(self):
        for n in range(8):
            yield Document(f"{n}.md", "The code is valid. " * (n + 1))


def test_the_first_passages_are_read_again_and_the_rest_follow(tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Listing())
        plain = index.search("code valid", 8)
        index.ranking, index.reranker = Ranking(rerank=4), Longest()
        again = index.search("code valid", 8)
        assert sorted(p.id for p in again[:4]) == sorted(p.id for p in plain[:4])
        assert [len(p.text) for p in again[:4]] == sorted((len(p.text) for p in plain[:4]), reverse=True)
        assert again[4:] == plain[4:]
        # Whatever k, the same passages are read: the first two are those of the first eight.
        assert index.search("code valid", 2) == again[:2]
        check_source(index, ["code valid"])


def test_a_rankings_reranker_is_opened(tiny):
    assert reranker_of(Ranking()) is None
    assert isinstance(reranker_of(Ranking(rerank=5)), LateInteraction)
    assert reranker_of(Ranking(rerank=5, reranker=str(tiny[0]))).name == f"cross-encoder-{tiny[0]}"
    json.dumps(Ranking(rerank=5).to_json())
