"""DSPy's optimizers over Tailorbird's metaprompts: what they find is raced on dev against everything else.

DSPy (Khattab et al. 2023, arXiv 2310.03714) is an extra. Its optimizers see a program of one step, whose prompt is
not DSPy's: an adapter turns the instruction and the examples that an optimizer tries into a metaprompt, which the
model answers as it will when it is served, label scoring included. `bootstrap` draws sets of examples that the model
answers rightly; `mipro` (Opsahl-Ong et al. 2024, arXiv 2406.11695) pairs such sets with proposed instructions;
`copro` (the same authors) and `gepa` (Agrawal et al. 2025, arXiv 2507.19457) improve the instruction, in front of
the examples that the race would show.

SIMBA is not offered: it learns from how differently a model answers the same question, and label scoring never does.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from tailorbird.data.task import Data
from tailorbird.errors import ContextTooLong, EndpointError, Unsupported
from tailorbird.evaluation.metrics import default_metric
from tailorbird.models.model import Model, Wrapped
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Completion, Example, Message, Request, Sampling
from tailorbird.techniques.asking import Pace
from tailorbird.techniques.metaprompt import Metaprompt
from tailorbird.techniques.metaprompt_search import Budget, Choice, Tried, score
from tailorbird.techniques.selection import balanced

log = logging.getLogger(__name__)

Optimizer = Literal["bootstrap", "mipro", "copro", "gepa"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
CHOOSE_EXAMPLES = frozenset({"bootstrap", "mipro"})
NEED_PROPOSER = frozenset({"mipro", "copro", "gepa"})

RACED = 3
"""What an optimizer found that takes part in the race."""
MOST_TRAIN = 200
"""Training examples that an optimizer sees, balanced over the labels."""
MOST_CALLS = 2000
"""What GEPA may ask of the metric; the budget ends it before."""
PRIOR_ANSWERS = 4
"""Wrong answers added to what a candidate was measured on: few answers should not look better than many."""


class _Stop(BaseException):
    """Ends an optimizer from within: each of them catches every Exception and goes on."""


@dataclass
class Asker:
    """What an optimizer asks: the model, behind the metaprompt that is tried.

    Args:
        model: answers.
        data: its dev is measured on; its training examples are what may be shown.
        build: makes a metaprompt of a choice.
        base: what an optimizer doesn't choose.
        chooses_examples: whether no examples means none, or those of `base`.
        budget: of the optimizer.
    """

    model: Model
    data: Data
    build: Callable[[Choice], Metaprompt]
    base: Choice
    chooses_examples: bool
    budget: Budget
    tried: dict[Choice, Tried] = field(default_factory=dict)
    answers: int = 0
    pace: Pace = field(default_factory=Pace)
    _made: dict[Choice, Metaprompt] = field(default_factory=dict)
    _texts: dict[tuple[Choice, str], str] = field(default_factory=dict)
    _worth: dict[tuple[Choice, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._train = {example.prompt: example for example in self.data.train}
        self._dev = {example.prompt: example for example in self.data.dev}
        self._metric = default_metric(self.data.task)[1]
        self._stderr = sys.stderr

    def choice(self, instruction: str, demos: Sequence[Mapping[str, Any]]) -> Choice:
        """The candidate that an instruction and demonstrations are."""
        said = self.base.instruction if instruction == self.instruction else instruction
        shown = tuple(self._train[demo["text"]].id for demo in demos if demo["text"] in self._train)
        if shown or self.chooses_examples:
            return replace(self.base, select="fixed", k=len(shown), examples=shown, instruction=said)
        return replace(self.base, instruction=said)

    @property
    def instruction(self) -> str:
        """What an optimizer starts from."""
        return self.base.instruction or self.data.task.instruction

    def answer(self, choice: Choice, text: str) -> str:
        """What the model answers; "" where the metaprompt is too long for it."""
        with contextlib.redirect_stderr(self._stderr):  # what we say is not what DSPy says
            return self._answer(choice, text)

    def _answer(self, choice: Choice, text: str) -> str:
        if not self.budget.allows(0, 0):
            raise _Stop
        if (choice, text) in self._texts:
            return self._texts[choice, text]
        example = self._dev.get(text) or self._train[text]
        if choice not in self._made:
            self._made[choice] = self.build(choice)
        tried = self.tried.setdefault(choice, Tried(choice))
        answer, worth = Completion(""), -1.0
        try:
            answer = Wrapped(self.model, self._made[choice]).answer([self.data.task.ask(example)])[0]
            worth = score(self._metric, example, answer)
        except ContextTooLong as error:
            tried.failed = str(error)
        tokens = answer.usage.input_tokens + answer.usage.output_tokens
        self.answers += 1
        self.budget.used_tokens += tokens
        if self.pace.is_due():
            log.info(
                "few_shot: the optimizer tried %d metaprompts by %d answers.", len(self.tried), self.answers
            )
        if text in self._dev:
            tried.tokens += tokens
            tried.scores.append(worth)
            self._worth[choice, text] = worth
        self._texts[choice, text] = answer.text
        return answer.text

    def metric(self, gold: Any, said: Any, *_: Any, **__: Any) -> float:
        """The task's metric, as DSPy asks for it: of an example and what the program said."""
        example = (self._dev if gold.on_dev else self._train)[gold.text]
        return float(self._metric(example, Completion(said.completion)))

    def best(self, final: Choice | None) -> list[Tried]:
        """What is worth a place in the race: what the optimizer settled on, then what did best on dev.

        With the scores of the first dev examples, as far as all of them were asked: they needn't be asked again.
        """
        measured = [one for one in self.tried.values() if one.scores and not one.failed]
        measured.sort(key=lambda one: -sum(one.scores) / (len(one.scores) + PRIOR_ANSWERS))
        found = [final] if final is not None else []
        chosen = list(dict.fromkeys([*found, *(one.choice for one in measured)]))[:RACED]
        return [self._in_order(choice) for choice in chosen]

    def _in_order(self, choice: Choice) -> Tried:
        known = [self._worth.get((choice, example.prompt)) for example in self.data.dev]
        first = list(itertools.takewhile(lambda worth: worth is not None, known))
        asked = self.tried.get(choice, Tried(choice))
        tokens = asked.tokens * len(first) // max(1, len(asked.scores))
        return Tried(choice, [worth for worth in first if worth is not None], tokens)


def optimized(
    name: Optimizer,
    asker: Asker,
    proposer: RemoteWeights | None,
    most: int,
    seed: int,
) -> list[Tried]:
    """The candidates that an optimizer found, at most `RACED`; where the budget ends it, the best until then.

    Args:
        name: of the optimizer.
        asker: what it asks.
        proposer: writes instructions; `NEED_PROPOSER` need one.
        most: examples that it may show.
        seed: of its draws.

    Raises:
        Unsupported: DSPy is not installed.
        EndpointError: the proposer can't be reached, or refuses.
    """
    dspy = _dspy(name)
    engine = _Engine(proposer, asker.budget)
    writer = dspy.LM(proposer.name if proposer else "none", engine=engine, cache=False)
    program = dspy.Predict(dspy.Signature("text -> completion", asker.instruction))
    train = _as_dspy(dspy, balanced(asker.data.train, seed)[:MOST_TRAIN], on_dev=False)
    dev = _as_dspy(dspy, asker.data.dev, on_dev=True)
    final, began = None, time.monotonic()
    try:
        # It tells how far it is on both streams; what matters of that is said below.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            dspy.context(lm=writer, adapter=_adapter(dspy, asker), disable_history=True),
        ):
            found = _compile(dspy, name, asker, writer, program, train, dev, most, seed)
        final = asker.choice(found.signature.instructions, found.demos)
    except _Stop:
        if engine.error is not None:
            raise engine.error from None
        log.info("few_shot: the budget ended DSPy's %s; what it found until then takes part.", name)
    except Exception as error:  # noqa: BLE001 - another library's, and what was found is not lost with it
        log.warning(
            "few_shot: DSPy's %s ended early: %s: %s. What it found until then takes part.",
            name, type(error).__name__, str(error)[:300],
        )  # fmt: skip
    log.info(
        "few_shot: DSPy's %s tried %d metaprompts by %d answers in %.0f s.",
        name, len(asker.tried), asker.answers, time.monotonic() - began,
    )  # fmt: skip
    return asker.best(final)


def check_installed(name: str) -> None:
    """Nothing, where DSPy is installed.

    Raises:
        Unsupported: it isn't.
    """
    _dspy(name)


def _dspy(name: str) -> Any:
    try:
        import dspy
    except ImportError as error:
        raise Unsupported(
            f"few_shot: optimizer {name!r} is DSPy's, which is not installed here. Install it "
            "(pip install 'tailorbird[dspy]'), or leave out optimizer: the race needs none."
        ) from error
    return dspy


def _as_dspy(dspy: Any, examples: Sequence[Example], *, on_dev: bool) -> list[Any]:
    return [
        dspy.Example(text=e.prompt, completion=e.completion, on_dev=on_dev).with_inputs("text")
        for e in examples
    ]


def _adapter(dspy: Any, asker: Asker) -> Any:
    """Answers the task's program by the asker, and everything else, such as proposing, as DSPy does."""

    class MetapromptAdapter(dspy.Adapter):
        def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
            if set(signature.fields) != {"text", "completion"}:
                return dspy.ChatAdapter()(lm, lm_kwargs, signature, demos, inputs)
            choice = asker.choice(signature.instructions, demos)
            return [{"completion": asker.answer(choice, inputs["text"])}]

    return MetapromptAdapter()


def _compile(  # noqa: PLR0917 - all that the optimizers take, in one place
    dspy: Any,
    name: Optimizer,
    asker: Asker,
    writer: Any,
    program: Any,
    train: list[Any],
    dev: list[Any],
    most: int,
    seed: int,
) -> Any:
    """The program as the optimizer leaves it."""
    shown = {"max_bootstrapped_demos": most, "max_labeled_demos": most}
    if name == "bootstrap":
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            asker.metric, metric_threshold=1.0, num_threads=1, **shown
        )
        return optimizer.compile(program, trainset=train, valset=dev)
    if name == "mipro":
        optimizer = dspy.MIPROv2(
            asker.metric, writer, writer, metric_threshold=1.0, num_threads=1, seed=seed, **shown
        )
        # Our program has no source worth reading: it is one step.
        return optimizer.compile(
            program,
            trainset=train,
            valset=dev,
            minibatch_size=min(35, len(dev)),
            program_aware_proposer=False,
        )
    if name == "copro":
        optimizer = dspy.COPRO(prompt_model=writer, metric=asker.metric)
        quiet = {"num_threads": 1, "display_progress": False, "display_table": False}
        return optimizer.compile(program, trainset=dev, eval_kwargs=quiet)

    def told(gold: Any, said: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        del trace, pred_name, pred_trace
        found = asker.metric(gold, said)
        verdict = "Right." if found == 1 else f"It should have been: {gold.completion}"
        return dspy.Prediction(score=found, feedback=verdict)

    optimizer = dspy.GEPA(
        metric=told, max_metric_calls=MOST_CALLS, reflection_lm=writer, num_threads=1, seed=seed
    )
    return optimizer.compile(program, trainset=train, valset=dev)


@dataclass
class _Engine:
    """The proposer, as DSPy asks a language model."""

    proposer: RemoteWeights | None
    budget: Budget
    error: EndpointError | None = None

    def complete(self, request: Any) -> Any:
        from dspy import lm15

        if self.proposer is None or not self.budget.allows(0, 0):
            raise _Stop
        config = request.config
        sampling = Sampling(
            max_tokens=config.max_tokens or 1024,
            temperature=1.0 if config.temperature is None else config.temperature,
        )
        messages = [
            Message("user" if m.role == "developer" else m.role, m.text or "") for m in request.messages
        ]
        if request.system:
            told = (
                request.system if isinstance(request.system, str) else "".join(p.text for p in request.system)
            )
            messages.insert(0, Message("system", told))
        try:
            found = self.proposer.answer([Request(tuple(messages), sampling)])[0]
        except EndpointError as error:
            self.error = error
            raise _Stop from error
        used = found.usage.input_tokens, found.usage.output_tokens
        self.budget.used_tokens += sum(used)
        return lm15.Response(
            id=None,
            model=self.proposer.name,
            message=lm15.Message.assistant(found.text or " "),
            finish_reason="length" if found.finish_reason == "length" else "stop",
            usage=lm15.Usage(input_tokens=used[0], output_tokens=used[1]),
        )

    def stream(self, request: Any) -> Any:
        from dspy import lm15

        return lm15.response_to_events(self.complete(request))

    def close(self) -> None:
        """Nothing is held open."""
