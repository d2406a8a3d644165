"""The metaprompt: an instruction and a few examples of the task, as a file that a person can read and edit.

    metaprompt.toml     all that decides what is shown, what was measured with it, and what it was made of
    pool.jsonl          the examples that are chosen from for each request, where they are; vectors.safetensors theirs
    dev.jsonl           labelled examples that are never shown: what it is measured on again when it is edited
    versions/N.toml     the file as it was before

Several tasks may share one: a request with a system message of its own is shown the examples that came with the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from tailorbird.data.task import Data
from tailorbird.errors import RecipeError
from tailorbird.models.folders import read_back, write_examples
from tailorbird.models.identity import identity_of
from tailorbird.models.model import Model, Wrapped
from tailorbird.records import Example, Layout, Message, Prior, Request, content_hash
from tailorbird.sources.embedder import default_embedder
from tailorbird.techniques.calibration import NOT_CALIBRATED, Calibrate, Calibration, log_votes
from tailorbird.techniques.metaprompt_file import read_fields, to_text
from tailorbird.techniques.metaprompt_fit import MOST_DEV, fit_labels
from tailorbird.techniques.selection import (
    PER_REQUEST,
    Likeness,
    Neighbours,
    Order,
    Select,
    by_task,
    nearly_equal,
    nearly_equal_to,
)

FILE = "metaprompt.toml"
VOTING = 50
"""Nearest examples that vote where the calibration is `neighbours`."""
OFF_THE_LIST = -50.0
"""Log-weight of a label that is not on the shortlist."""


@dataclass(frozen=True)
class Metaprompt:
    """Puts examples before the request's last user message, and what is known of the labels into its prior.

    A request made from an example is never shown that example, nor one that says nearly the same.

    Args:
        k: examples shown.
        select: how they are chosen.
        shown: the set that every request is shown, in order, and one more that stands in for an example that
            may not be shown itself; with `hybrid` the first part of what is shown.
        pool: chosen from for each request, and voting.
        core: with `hybrid`, how many of the `k` are the same for all.
        likeness: what makes examples of the pool near.
        order: in which the chosen ones stand.
        layout: of the whole conversation.
        instruction: replaces the request's; None keeps it.
        descriptions: what each label means, by label; listed after the instruction.
        calibration: of labels' probabilities.
        shortlist: labels that the pool's nearest examples bear, so many of them; all others are ruled out. None
            rules none out.
        prompt_tokens: tokens that the whole prompt may have; None leaves it to the model's context.
        abstain_below: probability below which the answer is that the model is unsure.
        calibrate: the kind of calibration that is fitted when it is fitted again; `auto` chooses on dev.
        precision: part of the answers that are to be right, by which `abstain_below` is fitted; None abstains never.
        measured: the score on `dev` and what it rests on, for people.
        made_of: hashes of the model, its tokenizer and the data that it was made for, for people.
        dev: see above.
        version: from 1, one more with every edit.
        versions: the file as it was at each version before this one.
    """

    kind: ClassVar[str] = "few_shot"

    k: int
    select: Select
    shown: tuple[Example, ...] = ()
    pool: tuple[Example, ...] = ()
    core: int = 0
    likeness: Likeness = "both"
    order: Order = "nearest_last"
    layout: Layout = "chat"
    instruction: str | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration = NOT_CALIBRATED
    shortlist: int | None = None
    prompt_tokens: int | None = None
    abstain_below: float = 0.0
    calibrate: Calibrate = "auto"
    precision: float | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    made_of: Mapping[str, str] = field(default_factory=dict)
    dev: tuple[Example, ...] = ()
    version: int = 1
    versions: tuple[str, ...] = ()
    neighbours: Neighbours | None = field(default=None, compare=False, repr=False)

    def __call__(self, request: Request) -> Request:
        changed = replace(
            request,
            messages=self._told(request.messages),
            examples=(*self.examples_for(request), *request.examples),
            layout=self.layout,
            prior=self.prior_for(request),
        )
        if self.calibration.channel and request.choices is not None and len(request.choices) > 1:
            changed = replace(changed, channel=self.calibration.channel)
        if self.prompt_tokens is not None:
            changed = replace(changed, prompt_tokens=self.prompt_tokens)
        if self.abstain_below and request.choices is not None:
            changed = replace(changed, abstain_below=self.abstain_below)
        return changed

    def examples_for(self, request: Request) -> list[Example]:
        """The examples that this request gets, in the order shown."""
        if self.select not in PER_REQUEST:
            return self._fixed(request, self.k)
        first = self._fixed(request, self.core) if self.select == "hybrid" else []
        found = self._chosen(request, self.k - len(first), {e.id for e in first})
        return [*first, *(found if self.order == "nearest_first" else found[::-1])]

    def prior_for(self, request: Request) -> Prior | None:
        """The request's own prior, after the calibration and the shortlist: a wrapper's outside is the later word."""
        own, outer, choices = self._calibrated(request), request.prior, request.choices
        if choices is None or own is None or outer is None:
            return own if choices is not None and outer is None else outer
        both = [
            outer.trust * mine + given for mine, given in zip(own.log_weights, outer.log_weights, strict=True)
        ]
        return Prior(tuple(both), outer.trust * own.trust)

    def label_candidates(self, request: Request, count: int) -> list[str]:
        """The labels that the nearest examples bear, nearest first, up to `count` of them."""
        if self.neighbours is None:
            return []
        near = self.neighbours.similarities(request.question)
        allowed, found = self._allowed(request, self.pool, self._pool_tasks), dict[str, None]()
        for index in (-near).argsort(kind="stable").tolist():
            if allowed(index):
                found.setdefault(self.pool[index].completion)
            if len(found) == count:
                break
        return list(found)

    def votes_for(self, request: Request, labels: Sequence[str], temperature: float) -> dict[str, float]:
        """Log-votes of the nearest examples: see `calibration.log_votes`."""
        near: list[tuple[str, float]] = []
        if self.neighbours is not None:
            cosines = self.neighbours.similarities(request.question)
            allowed = self._allowed(request, self.pool, self._pool_tasks)
            near_by = self.neighbours.nearest(request.question, VOTING, allowed, "meaning")
            near = [(self.pool[i].completion, float(cosines[i])) for i in near_by]
        return log_votes(labels, near, temperature)

    # -- fitted to a model ---------------------------------------------------------------------

    def unfitted(self) -> Metaprompt:
        """The same without what was fitted to the answers of a model."""
        return replace(self, calibration=NOT_CALIBRATED, abstain_below=0.0)

    def fitted(self, base: Model, data: Data) -> Metaprompt:
        """The same, fitted to what the model answers on `data.dev`, and measured there."""
        dev = self.dev or tuple(as_shown(example) for example in data.dev[:MOST_DEV])
        parts = (self.shown, self.pool, dev)
        hashes = {**identity_of(base), "data": content_hash([[e.id for e in part] for part in parts])}
        bare = replace(self.unfitted(), made_of=hashes, dev=dev)
        found = fit_labels(
            Wrapped(base, bare),
            Data(data.task, data.train, dev, (), data.documents),
            None if self.neighbours is None else bare.votes_for,
            calibrate=self.calibrate,
            precision=self.precision,
            own_examples=self.select in PER_REQUEST,
        )
        return replace(
            bare, calibration=found.calibration, abstain_below=found.abstain_below, measured=found.measured
        )

    def edited(self, text: str, where: str) -> Metaprompt:
        """The next version, as an edited metaprompt.toml says, and not yet fitted.

        Raises:
            RecipeError: it makes no sense, or needs examples that were not kept.
        """
        found = read_fields(text, where)
        next_one = {"version": self.version + 1, "versions": (*self.versions, self.text), "measured": {}}
        made = replace(self, **{**found, **next_one}).unfitted()
        if not self.pool and (made.select in PER_REQUEST or made.calibrate == "neighbours" or made.shortlist):
            raise RecipeError(
                f"{where}: select = {made.select!r}, calibrate = {made.calibrate!r} and shortlist = {made.shortlist} "
                "need the examples to choose from, which were not kept with this metaprompt. Make one with "
                '`tailor customize --steps few_shot`, select = "nearest".'
            )
        needed = made.core if made.select == "hybrid" else 0 if made.select in PER_REQUEST else made.k
        if needed > len(made.shown):
            raise RecipeError(
                f"{where}: {needed} examples are to be shown to every request, and the file has {len(made.shown)}. Add "
                "[[examples]], or lower k."
            )
        return made

    # -- kept with a model ---------------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the files, see above."""
        (folder / FILE).write_text(self.text, encoding="utf-8")
        if self.pool:
            write_examples(folder / "pool.jsonl", self.pool)
        if self.dev:
            write_examples(folder / "dev.jsonl", self.dev)
        if self.neighbours is not None:
            from safetensors.numpy import save_file

            save_file({"vectors": self.neighbours.vectors}, str(folder / "vectors.safetensors"))
        for number, text in enumerate(self.versions, 1):
            (folder / "versions").mkdir(exist_ok=True)
            (folder / "versions" / f"{number}.toml").write_text(text, encoding="utf-8")
        return {"version": self.version}

    @property
    def text(self) -> str:
        """What metaprompt.toml holds."""
        return to_text({f.name: getattr(self, f.name) for f in fields(self)})

    # -- the parts of a request ----------------------------------------------------------------

    def _told(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if self.instruction is None and not self.descriptions:
            return messages
        told = self.instruction or next((m.content for m in messages if m.role == "system"), "")
        lines = [f"- {label}: {meaning}" for label, meaning in self.descriptions.items()]
        system = Message("system", "\n".join([part for part in (told, *lines) if part]))
        return (system, *(m for m in messages if m.role != "system"))

    def _fixed(self, request: Request, k: int) -> list[Example]:
        allowed = self._allowed(request, self.shown, self._shown_tasks)
        return [example for i, example in enumerate(self.shown) if allowed(i)][:k]

    def _chosen(self, request: Request, k: int, taken: Collection[str]) -> list[Example]:
        if self.neighbours is None or k <= 0:
            return []
        may = self._allowed(request, self.pool, self._pool_tasks)

        def allowed(i: int) -> bool:
            return may(i) and self.pool[i].id not in taken

        choose = self.neighbours.diverse if self.select == "mmr" else self.neighbours.nearest
        return [self.pool[i] for i in choose(request.question, k, allowed, self.likeness)]

    def _allowed(
        self, request: Request, examples: Sequence[Example], tasks: Mapping[str | None, Collection[int]]
    ) -> Callable[[int], bool]:
        """Which of the examples may be shown to, and vote on, this request."""
        own = next((m.content for m in request.messages if m.role == "system"), None)
        places = tasks.get(own, tasks.get(None) if len(tasks) > 1 else None)
        if request.example_id is None:
            return (lambda _: True) if places is None else places.__contains__
        same, alike = _plain(request.question), self._groups.get(request.example_id, ())
        near = nearly_equal_to(request.question, examples) if examples is self.shown else ()

        def allowed(i: int) -> bool:
            example = examples[i]
            return (
                (places is None or i in places)
                and example.id != request.example_id
                and example.id not in alike
                and i not in near
                and _plain(example.prompt) != same
            )

        return allowed

    @cached_property
    def _groups(self) -> Mapping[str, Collection[str]]:
        """Ids of the pool's examples that say nearly the same, by the id of each."""
        alike = nearly_equal(self.pool)
        return {self.pool[i].id: {self.pool[j].id for j in group} for i, group in alike.items()}

    @cached_property
    def _pool_tasks(self) -> Mapping[str | None, Collection[int]]:
        return {task: frozenset(places) for task, places in by_task(self.pool).items()}

    @cached_property
    def _shown_tasks(self) -> Mapping[str | None, Collection[int]]:
        return {task: frozenset(places) for task, places in by_task(self.shown).items()}

    def _calibrated(self, request: Request) -> Prior | None:
        choices = request.choices
        if choices is None or len(choices) < 2:
            return None
        prior = self.calibration.prior(choices, lambda t: self.votes_for(request, choices, t))
        if self.shortlist is None:
            return prior
        kept = set(self.label_candidates(request, self.shortlist))
        if not kept.intersection(choices):
            return prior
        given = prior or Prior((0.0,) * len(choices))
        listed = [
            weight if choice in kept else weight + OFF_THE_LIST
            for choice, weight in zip(choices, given.log_weights, strict=True)
        ]
        return Prior(tuple(listed), given.trust)


def load_metaprompt(folder: Path, settings: dict[str, Any]) -> Metaprompt:
    """The metaprompt that was saved in a folder."""
    del settings  # all is in the files
    path = folder / FILE
    made = Metaprompt(**read_fields(path.read_text(encoding="utf-8"), str(path)))
    pool, dev = (
        read_back(folder / name) if (folder / name).is_file() else () for name in ("pool.jsonl", "dev.jsonl")
    )
    neighbours = None
    if (folder / "vectors.safetensors").is_file():
        from safetensors.numpy import load_file

        vectors = load_file(str(folder / "vectors.safetensors"))["vectors"]
        neighbours = Neighbours([e.prompt for e in pool], default_embedder(), vectors)
    return replace(made, pool=pool, dev=dev, neighbours=neighbours, versions=earlier_versions(folder))


def earlier_versions(folder: Path) -> tuple[str, ...]:
    """The file at each version before the present one, in order."""
    paths = sorted((folder / "versions").glob("*.toml"), key=lambda path: int(path.stem))
    return tuple(path.read_text(encoding="utf-8") for path in paths)


def as_shown(example: Example) -> Example:
    """What of an example is shown, and saved: not where it was read."""
    return Example(example.messages, example.completion, id=example.id)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
