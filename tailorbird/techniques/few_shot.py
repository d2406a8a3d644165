"""Few-shot: a metaprompt of the instruction and 3–5 examples of the task in front of every request.

Brown et al. 2020, "Language Models are Few-Shot Learners". Which examples are shown matters most:
the ones nearest to the request beat any fixed choice by far on tasks with many labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tailorbird.data.leakage import matches_in
from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError
from tailorbird.evaluation.metrics import default_metric
from tailorbird.models.model import Model, Wrapped, weights_of
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import LAYOUTS, Example, Layout
from tailorbird.sources.embedder import default_embedder
from tailorbird.techniques.asking import answer_all
from tailorbird.techniques.calibration import KINDS, Calibrate
from tailorbird.techniques.dspy_optimizers import (
    CHOOSE_EXAMPLES,
    NEED_PROPOSER,
    OPTIMIZERS,
    Asker,
    Optimizer,
    check_installed,
    optimized,
)
from tailorbird.techniques.metaprompt import Metaprompt, as_shown, load_metaprompt
from tailorbird.techniques.metaprompt_fit import MOST_DEV, fit_shortlist, summary
from tailorbird.techniques.metaprompt_search import (
    RACED_K,
    RACED_SELECTS,
    Budget,
    Choice,
    Space,
    Tried,
    instructions_for,
    keyword_descriptions,
    replace_seconds,
    search,
)
from tailorbird.techniques.proposing import endpoint, proposed_instructions
from tailorbird.techniques.selection import (
    LIKENESSES,
    ORDERS,
    PER_REQUEST,
    SELECTS,
    Likeness,
    Neighbours,
    Order,
    Select,
    by_task,
    one_set,
)

log = logging.getLogger(__name__)

MOST_EXAMPLES = 16
USUAL = Choice()
SPREAD_SEEDS = 3
"""Draws of examples that are measured where the search settles on one set for all."""


@dataclass(frozen=True)
class FewShot:
    """Wraps a model in a metaprompt.

    What is None is as usual, in brackets; with `tune` it is chosen on dev by a race.

    Args:
        k: examples shown, 0–16; typically 3–5 [5].
        select: "nearest" finds the most similar for each request, "mmr" similar ones that differ among
            themselves, "hybrid" puts them after a balanced set that is the same for all; one set for all is
            "balanced" over the labels, "random", "fixed" (the first `k`), "k_medoids" (middles of clusters) or
            "vote_k" (what many others are near to) ["nearest"].
        likeness: what makes examples near: "words" (BM25), "meaning" (sentence embeddings), or "both" fused.
        order: "nearest_last" or "nearest_first" ["nearest_last"].
        layout: "chat", the model's own template, or "plain" text [chat].
        core: with "hybrid", how many of the `k` are the same for all [half of them].
        instruction: replaces the task's instruction [the task's].
        instructions: further ones that a race may try.
        descriptions: what labels mean, by label: listed after the instruction; with `tune` a race also tries
            words that tell the labels apart [none].
        calibrate: what is made of labels' probabilities: see `techniques.calibration`; "auto" chooses on dev.
        shortlist: labels that are left in question, by the nearest examples; 0 takes the smallest number that
            holds the right one in 99 % of dev. None leaves all in question.
        prompt_tokens: tokens that a prompt may have; examples are left out, the first ones first, and named.
            None leaves it to the model's context.
        precision: part of the answers that are to be right; the model abstains where it is too unsure for that.
        tune: chooses on dev what is not given.
        proposer: `URL#model` of a strong model that may propose instructions for the race [none].
        proposer_key_env: environment variable that holds its key.
        optimizer: one of DSPy's optimizers that finds metaprompts for the race, in half the budget, see
            `techniques.dspy_optimizers`: "bootstrap", or with a proposer "mipro", "copro" or "gepa" [none].
        budget_s: seconds that this may take.
        budget_tokens: tokens that this may take; None sets no bound.
        seed: of draws.

    Raises:
        RecipeError: a setting is out of its range.
        DataError: there are no training examples to show.
    """

    k: int | None = None
    select: Select | None = None
    likeness: Likeness = "both"
    order: Order | None = None
    layout: Layout | None = None
    core: int | None = None
    instruction: str | None = None
    instructions: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    calibrate: Calibrate = "auto"
    shortlist: int | None = None
    prompt_tokens: int | None = None
    precision: float | None = None
    tune: bool = False
    proposer: str | None = None
    proposer_key_env: str = "OPENAI_API_KEY"
    optimizer: Optimizer | None = None
    budget_s: float = 120.0
    budget_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k is not None and not 0 <= self.k <= MOST_EXAMPLES:
            raise RecipeError(f"few_shot: k is {self.k}; expected 0 to {MOST_EXAMPLES}. 3 to 5 are typical.")
        allowed: dict[str, Sequence[str]] = {
            "select": SELECTS,
            "likeness": LIKENESSES,
            "order": ORDERS,
            "layout": LAYOUTS,
            "calibrate": ("auto", *KINDS),
            "optimizer": OPTIMIZERS,
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                raise RecipeError(f"few_shot: {name} is {value!r}; expected one of {', '.join(values)}.")
        if self.core is not None and not 0 <= self.core <= (MOST_EXAMPLES if self.k is None else self.k):
            raise RecipeError(
                f"few_shot: core is {self.core}; expected 0 to k, which is {self.k or USUAL.k}."
            )
        if self.shortlist is not None and (self.shortlist < 0 or self.shortlist == 1):
            raise RecipeError(
                f"few_shot: shortlist is {self.shortlist}; expected 2 labels or more, or 0 to find out how many."
            )
        if self.prompt_tokens is not None and self.prompt_tokens < 1:
            raise RecipeError(f"few_shot: prompt_tokens is {self.prompt_tokens}; expected 1 or more.")
        if self.precision is not None and not 0 < self.precision < 1:
            raise RecipeError(
                f"few_shot: precision is {self.precision}; expected above 0 and below 1, such as 0.95."
            )
        if self.proposer is not None:
            endpoint(self.proposer, self.proposer_key_env)
            if not self.tune or self.instruction is not None:
                raise RecipeError(
                    "few_shot: a proposer's instructions race on dev, which takes tune = true and no instruction given."
                )
        if self.optimizer is not None:
            self._check_optimizer(self.optimizer)
        if not self.budget_s > 0 or (self.budget_tokens is not None and self.budget_tokens < 1):
            raise RecipeError(
                f"few_shot: the budget is {self.budget_s} s and {self.budget_tokens} tokens; expected more than 0."
            )

    def _check_optimizer(self, name: Optimizer) -> None:
        if not self.tune:
            raise RecipeError(
                f"few_shot: what optimizer {name!r} finds races on dev, which takes tune = true. Set it."
            )
        if name in NEED_PROPOSER and self.proposer is None:
            raise RecipeError(
                f"few_shot: optimizer {name!r} needs a strong model that writes instructions. Name one by "
                'proposer = "URL#model", or use optimizer = "bootstrap", which needs none.'
            )
        if name in CHOOSE_EXAMPLES and (self.select is not None or self.k == 0):
            raise RecipeError(
                f"few_shot: optimizer {name!r} chooses the examples itself, and select is {self.select!r}, k {self.k}. "
                "Leave out select, and let k, the most it may show, be 1 or more."
            )
        check_installed(name)

    def apply(self, model: Model, data: Data) -> Model:
        if not data.train and self.k != 0:
            raise DataError(
                f"few_shot: there are no training examples to show. Give some, or set k = 0 (now {self.k or USUAL.k})."
            )
        if data.task.kind != "classify" and (self.shortlist is not None or self.descriptions):
            raise DataError(
                "few_shot: shortlist and descriptions are for labels, and the task is to answer freely. Leave them out."
            )
        if self.layout == "plain" and any("\n" in example.completion for example in data.train[:1000]):
            raise RecipeError(
                'few_shot: layout is "plain", where an answer ends with its line, and there are completions of several '
                'lines. Use layout = "chat".'
            )
        if self.optimizer is not None and not data.dev:
            raise DataError(
                f"few_shot: there are no dev examples that what optimizer {self.optimizer!r} finds could race on. Give "
                "more examples, or leave it out."
            )
        builder = Builder(self, data, self._pool(data))
        choice, tried = self._usual(), list[Tried]()
        if self.tune and data.dev:
            seen = Data(data.task, data.train, data.dev[:MOST_DEV], (), data.documents)
            budget = Budget(self.budget_s, self.budget_tokens)
            space = self._space(model, data)
            found = self._optimized(model, seen, builder, space, budget)
            tried = search(model, seen, builder.build, space, budget.rest(), found)
            choice = tried[0].choice
            log.info("few_shot: of %d metaprompts %s is the best on dev.", len(tried), _told(choice))
        made = builder.build(choice)
        spread: list[dict[str, Any]] = []
        if tried and choice.select not in PER_REQUEST and choice.select != "fixed" and choice.k:
            made, spread = self._best_draw(model, data, builder, choice)
        if data.task.kind == "classify" and self.shortlist is not None:
            made = replace(made, shortlist=fit_shortlist(made.label_candidates, data, self.shortlist or None))
        made = made.fitted(model, data)
        return Wrapped(model, replace(made, measured=_measured(made, tried, spread, data)))

    def _usual(self) -> Choice:
        """What is given, and else as usual."""
        return Choice(
            USUAL.select if self.select is None else self.select,
            USUAL.k if self.k is None else self.k,
            self.order or USUAL.order,
            self.layout or USUAL.layout,
            self.instruction,
            described=False,
        )

    def _space(self, model: Model, data: Data) -> Space:
        """What may be chosen: what is given alone, else all there is to race, the usual first."""
        # An endpoint has its own template, and plainly laid out an answer ends with its line.
        multiline = any("\n" in example.completion for example in data.train[:1000])
        chat_only = multiline or isinstance(weights_of(model), RemoteWeights)
        layouts: tuple[Layout, ...] = ("chat",) if chat_only else LAYOUTS
        return Space(
            selects=RACED_SELECTS if self.select is None else (self.select,),
            ks=(RACED_K if data.train else (0,)) if self.k is None else (self.k,),
            orders=ORDERS if self.order is None else (self.order,),
            layouts=layouts if self.layout is None else (self.layout,),
            instructions=self._instructions(data),
            descriptions=(False, True)
            if data.task.kind == "classify" and not self.descriptions
            else (False,),
        )

    def _optimized(
        self, model: Model, data: Data, builder: Builder, space: Space, budget: Budget
    ) -> list[Tried]:
        """What the optimizer found, if there is one."""
        if self.optimizer is None:
            return []
        asker = Asker(
            model,
            replace(data, train=builder.pool),
            builder.build,
            space.first,
            self.optimizer in CHOOSE_EXAMPLES,
            replace_seconds(budget, 0.5),
        )
        proposer = None if self.proposer is None else endpoint(self.proposer, self.proposer_key_env)
        found = optimized(self.optimizer, asker, proposer, self.k or USUAL.k, self.seed)
        budget.used_tokens = asker.budget.used_tokens
        return found

    def _instructions(self, data: Data) -> tuple[str | None, ...]:
        if self.instruction is not None:
            return (self.instruction, *self.instructions)
        proposed: tuple[str, ...] = ()
        if self.proposer is not None:
            proposed = proposed_instructions(endpoint(self.proposer, self.proposer_key_env), data, self.seed)
        return tuple(dict.fromkeys((*instructions_for(data), *self.instructions, *proposed)))

    def _pool(self, data: Data) -> tuple[Example, ...]:
        """The training examples without those that nearly equal a dev example: what is shown must not answer it."""
        told = matches_in(data.train, data.dev) if data.dev else {}
        if told:
            log.warning(
                "few_shot: %d training examples that nearly equal a dev example are not shown.", len(told)
            )
        return tuple(as_shown(example) for i, example in enumerate(data.train) if i not in told)

    def _best_draw(
        self, model: Model, data: Data, builder: Builder, choice: Choice
    ) -> tuple[Metaprompt, list[dict[str, Any]]]:
        """Of several draws of the examples the best on dev, and how all of them did."""
        _, metric = default_metric(data.task)
        dev = data.dev[:MOST_DEV]
        draws: list[tuple[float, Metaprompt, dict[str, Any]]] = []
        for seed in range(self.seed, self.seed + SPREAD_SEEDS):
            made = builder.build(choice, seed)
            answers = answer_all(
                Wrapped(model, made), [data.task.ask(example) for example in dev], "few_shot"
            )
            mean = sum(metric(e, a) for e, a in zip(dev, answers, strict=True)) / len(dev)
            draws.append((mean, made, {"seed": seed, "score": round(mean, 4)}))
        return max(draws, key=lambda draw: draw[0])[1], [row for _, _, row in draws]


class Builder:
    """Makes metaprompts of choices; the pool is embedded once."""

    def __init__(self, settings: FewShot, data: Data, pool: tuple[Example, ...]) -> None:
        self.settings, self.data, self.pool = settings, data, pool
        self._neighbours: Neighbours | None = None

    @property
    def neighbours(self) -> Neighbours:
        """The pool's, made when first needed."""
        if self._neighbours is None:
            self._neighbours = Neighbours([e.prompt for e in self.pool], default_embedder())
        return self._neighbours

    def build(self, choice: Choice, seed: int | None = None) -> Metaprompt:
        """The metaprompt of a choice, not calibrated."""
        settings = self.settings
        searched = choice.select in PER_REQUEST and choice.k > 0
        looked_up = searched or settings.calibrate == "neighbours" or settings.shortlist is not None
        core = (choice.k // 2 if settings.core is None else settings.core) if choice.select == "hybrid" else 0
        descriptions = dict(settings.descriptions)
        if choice.described:
            descriptions = keyword_descriptions(self.pool, self.data.task.labels)
        return Metaprompt(
            k=choice.k,
            select=choice.select,
            shown=self._one_set(choice, core, settings.seed if seed is None else seed),
            pool=self.pool if looked_up and self.pool else (),
            core=core,
            likeness=settings.likeness,
            order=choice.order,
            layout=choice.layout,
            instruction=choice.instruction,
            descriptions=descriptions,
            prompt_tokens=settings.prompt_tokens,
            calibrate=settings.calibrate,
            precision=settings.precision,
            neighbours=self.neighbours if looked_up and self.pool else None,
        )

    def _one_set(self, choice: Choice, core: int, seed: int) -> tuple[Example, ...]:
        """What every request is shown, of each task in the pool."""
        if choice.select in ("nearest", "mmr") or not choice.k:
            return ()
        select: Select = "balanced" if choice.select == "hybrid" else choice.select
        if choice.examples:
            by_id = {example.id: example for example in self.pool}
            return tuple(by_id[one] for one in choice.examples)
        # One more than shown, so that a training request loses itself and still gets k.
        count = (core if choice.select == "hybrid" else choice.k) + 1
        return tuple(
            example
            for places in by_task(self.pool).values()
            for example in one_set(select, [self.pool[i] for i in places], count, seed, default_embedder)
        )


def _told(choice: Choice) -> str:
    said = f"k = {choice.k}, {choice.select}, {choice.layout}" + (", described" if choice.described else "")
    return f"{said}, {choice.instruction!r}" if choice.instruction else said


def _measured(
    made: Metaprompt, tried: Sequence[Tried], spread: Sequence[Mapping[str, Any]], data: Data
) -> dict[str, Any]:
    """What was measured on dev: the metaprompt's score, what else was tried, and how draws of examples differ."""
    found = dict(made.measured)
    if tried and not found:
        scores = [min(1.0, max(0.0, value)) for value in tried[0].scores]
        found = summary(default_metric(data.task)[0], scores)
    if tried:
        found["tried"] = [one.to_json() for one in tried]
    if spread:
        found["draws"] = list(spread)
    return found


__all__ = ["FewShot", "Metaprompt", "load_metaprompt"]
