"""Scores whose true means are known: what comparisons would see again and again if the truth were given.

Each score is a quantile of its arm's distribution. Which quantile depends on how hard the example is for
every arm (`difficulty`), on what the arms share about its document (`document`), on what each makes of that
document by itself (`taste`), and on chance: a Gaussian copula, so that the means stay exactly as given while
the answers of different arms, and of one document, go together.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

PARTIAL = np.array([1 / 4, 1 / 3, 2 / 5, 1 / 2, 4 / 7, 2 / 3, 4 / 5, 6 / 7])
"""F1 scores of short answers that are right in part."""
PARTLY = {0.5: 0.3, 0.9: 0.1, 0.97: 0.04}
"""The share of answers that are right in part, by the mean score."""
SMALLEST, LARGEST = 3, 10
"""Examples of one document."""


@dataclass(frozen=True)
class Dependence:
    """Shares of the variance beneath a score; chance has the rest."""

    difficulty: float = 0.5
    document: float = 0.0
    taste: float = 0.0


ALONE = Dependence()
BY_DOCUMENT = Dependence(difficulty=0.3, document=0.2, taste=0.15)


def distribution(kind, mean):
    """Values and their chances: "right_wrong", "token_f1" (mostly 0 or 1) or "smooth" (a beta distribution)."""
    if kind == "right_wrong":
        return np.array([0.0, 1.0]), np.array([1 - mean, mean])
    if kind == "token_f1":
        partly = PARTLY.get(mean, 0.1)
        full = mean - partly * PARTIAL.mean()
        chances = [1 - full - partly, *np.full(len(PARTIAL), partly / len(PARTIAL)), full]
        return np.array([0.0, *PARTIAL, 1.0]), np.array(chances)
    middles = (np.arange(400) + 0.5) / 400
    values = stats.beta.ppf(middles, 8 * mean, 8 * (1 - mean))
    return np.clip(values, 0, 1), np.full(400, 1 / 400)


def true_mean(kind, mean):
    """The mean that scores of this kind have exactly."""
    values, chances = distribution(kind, mean)
    return float(values @ chances)


def documents(num_examples):
    """The document of every example: of 3 to 10 examples each."""
    rng, sizes = np.random.default_rng(num_examples), []
    while sum(sizes) < num_examples:
        sizes.append(int(rng.integers(SMALLEST, LARGEST + 1)))
    return np.repeat(np.arange(len(sizes)), sizes)[:num_examples]


def simulate(rng, kind, means, num_sets, num_examples, groups=None, dependence=None):
    """Scores of arms (one array of sets × examples each) with these means.

    Args:
        rng: the generator.
        kind: of the scores, see `distribution`.
        means: one an arm.
        num_sets: how many test sets.
        num_examples: examples in each.
        groups: the document of every example; None where they are independent.
        dependence: what scores have in common; the usual one of independent or of grouped examples if not given.
    """
    shared = dependence or (ALONE if groups is None else BY_DOCUMENT)
    shape = (num_sets, num_examples)
    common = np.sqrt(shared.difficulty) * rng.standard_normal(shape)
    if groups is not None:
        common += np.sqrt(shared.document) * rng.standard_normal((num_sets, groups.max() + 1))[:, groups]
    rest = np.sqrt(1 - shared.difficulty - shared.document - shared.taste)
    arms = []
    for mean in means:
        latent = common + rest * rng.standard_normal(shape)
        if groups is not None:
            latent += np.sqrt(shared.taste) * rng.standard_normal((num_sets, groups.max() + 1))[:, groups]
        values, chances = distribution(kind, mean)
        edges = np.cumsum(chances)
        edges[-1] = 2.0  # rounding must not leave the last value out
        arms.append(values[np.searchsorted(edges, special.ndtr(latent), side="right")])
    return arms
