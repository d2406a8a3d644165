import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.errors import RequestError
from tailorbird.models.label_scoring import NEGLIGIBLE, Search
from tailorbird.models.trie import build_trie
from tailorbird.records import Prior

STOP = 0
paths = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


def spelled(trie):
    """Each label's tokens, read back from its edges."""
    return [tuple(trie.edge_token[edge] for edge in path) for path in trie.paths]


@given(st.lists(paths, min_size=1, max_size=30, unique=True))
def test_every_label_is_spelled_by_its_path_and_closed_only_where_another_goes_on(labels):
    trie = build_trie(labels, STOP)
    for label, path in zip(labels, spelled(trie), strict=True):
        goes_on = any(other != label and other[: len(label)] == label for other in labels)
        assert path == ((*label, STOP) if goes_on else label)


@given(st.lists(paths, min_size=1, max_size=30, unique=True))
def test_each_shared_start_is_one_node(labels):
    trie = build_trie(labels, STOP)
    ends = set(spelled(trie))
    inner = {path[:n] for path in ends for n in range(1, len(path))}
    assert len(trie.tokens) == len(trie.parents) == len(trie.depths) == len(inner)
    assert len(trie.edge_token) == len({path[:n] for path in ends for n in range(1, len(path) + 1)})
    for node, (parent, depth) in enumerate(zip(trie.parents, trie.depths, strict=True), 1):
        assert parent < node
        assert depth == (trie.depths[parent - 1] + 1 if parent else 1)


def test_labels_of_one_token_need_no_node():
    trie = build_trie([(5,), (6,)], STOP)
    assert trie.tokens == ()
    assert trie.edge_from == (0, 0)


@pytest.mark.parametrize("labels", [[(1, 2), (1, 2)], [(1,), ()], [()]], ids=["twice", "empty", "only_empty"])
def test_labels_that_look_alike_or_are_empty_are_refused(labels):
    with pytest.raises(RequestError, match=r"must be non-empty and differ.*Rename the labels"):
        build_trie(labels, STOP)


def searched(trie, likely):
    """A search to its end; each edge of the likely label has 0.9999, the others share the rest."""
    search = Search(trie)
    path = set(trie.paths[likely])
    while nodes := search.next_nodes():
        for node in nodes:
            edges = trie.edges[node]
            one = any(edge in path for edge in edges)
            rest = (0.0001 if one else 0.5) / max(1, len(edges) - one)
            search.expand(node, [math.log(0.9999 if edge in path else rest) for edge in edges])
    return search


def test_a_sure_model_is_asked_along_the_likely_label_and_little_else():
    labels = [(a, b, c) for a in range(1, 9) for b in range(1, 9) for c in range(1, 9)]
    trie = build_trie(labels, STOP)
    search = searched(trie, 100)
    scores = search.scores()
    assert max(range(len(labels)), key=scores.__getitem__) == 100
    assert search.num_nodes < len(trie.tokens) / 3
    assert sum(map(math.exp, scores)) == pytest.approx(1, abs=0.02)


@given(st.lists(paths, min_size=2, max_size=30, unique=True), st.data())
def test_what_is_left_out_holds_less_than_the_negligible_part(labels, data):
    trie = build_trie(labels, STOP)
    search = searched(trie, data.draw(st.integers(0, len(labels) - 1)))
    left = sum(math.exp(log_p) for log_p in search.frontier.values())
    found = sum(math.exp(log_p) for log_p in search.labels.values())
    assert left <= NEGLIGIBLE * found * (1 + 1e-9)
    assert not search.frontier or max(search.frontier.values()) < max(search.labels.values())


@given(
    st.lists(paths, min_size=2, max_size=30, unique=True),
    st.floats(0.1, 3.0),
    st.randoms(use_true_random=False),
)
def test_with_a_prior_the_likeliest_label_is_that_of_brute_force(labels, trust, random):
    trie = build_trie(labels, STOP)
    log_p: dict[int, float] = {}
    for edges in trie.edges.values():
        shares = [random.random() ** 4 + 1e-9 for _ in edges]
        log_p |= {edge: math.log(share / sum(shares)) for edge, share in zip(edges, shares, strict=True)}
    prior = Prior(tuple(4 * math.log(random.random() + 1e-9) for _ in labels), trust)
    search = Search(trie, prior)
    while nodes := search.next_nodes():
        for node in nodes:
            search.expand(node, [log_p[edge] for edge in trie.edges[node]])
    true = [
        trust * sum(log_p[edge] for edge in path) + weight
        for path, weight in zip(trie.paths, prior.log_weights, strict=True)
    ]
    found = search.scores()
    best = max(range(len(labels)), key=true.__getitem__)
    assert found[best] == pytest.approx(true[best])
    assert max(found) == pytest.approx(true[best])
    left = sum(math.exp(score) for label, score in enumerate(true) if label not in search.labels)
    kept = sum(math.exp(true[label]) for label in search.labels)
    assert left <= NEGLIGIBLE * kept * (1 + 1e-9)
