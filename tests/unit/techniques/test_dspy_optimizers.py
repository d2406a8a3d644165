import json
import logging
import re
import sys
import time
from dataclasses import dataclass, field, replace

import pytest
from endpoint import Endpoint, said

from tailorbird.errors import ContextTooLong, DataError, EndpointError, RecipeError, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.records import Completion, Usage
from tailorbird.techniques.dspy_optimizers import OPTIMIZERS, RACED, Asker, optimized
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.metaprompt_search import Budget, Choice, Space, Tried, search
from tailorbird.techniques.proposing import endpoint
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_model

pytest.importorskip("dspy", reason="DSPy is an extra: pip install 'tailorbird[dspy]'")

DATA = tiny_data()
BASE = Choice(k=2)
WRITERS = [name for name in OPTIMIZERS if name != "bootstrap"]
SPACE = Space(("nearest",), (2,), ("nearest_last",), ("chat",), (None,), (False,))
BETTER = "Tell which desk takes this."


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@dataclass(frozen=True)
class Prefers(Blank):
    """Right for every example where it likes the metaprompt, else for every other one."""

    likes: object = None
    asked: list = field(default_factory=list)

    def answer(self, requests):
        return [self.one(request) for request in requests]

    def one(self, request):
        self.asked.append(request)
        known = [*DATA.train, *DATA.dev]
        place, right = next((n, e.completion) for n, e in enumerate(known) if e.prompt == request.question)
        wrong = next(label for label in DATA.task.labels if label != right)
        text = right if self.likes(request) or place % 2 else wrong
        return Completion(text, "choice", Usage(10, 1), asked=request)


def asker_of(model, *, chooses_examples, budget=None, base=BASE):
    technique = FewShot(k=2, calibrate="none")
    builder_of = {}

    def build(choice):
        from tailorbird.techniques.few_shot import Builder

        builder = builder_of.setdefault("it", Builder(technique, DATA, DATA.train))
        return builder.build(choice)

    return Asker(model, DATA, build, base, chooses_examples, budget or Budget(1000))


def writes(text):
    """An endpoint's model that fills in each field it is asked for, the instruction with `text`."""

    def respond(body):
        told = "\n".join(m["content"] for m in body["messages"])
        if "[[ ##" not in told:
            return 200, said(f"```\n{text}\n```")
        wanted = told.partition("Your output fields are:")[2].partition("All interactions")[0]
        names = re.findall(r"`(\w+)`", wanted)
        if "JSON object" in told:
            return 200, said(json.dumps(dict.fromkeys(names, text)))
        return 200, said(
            "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name in names) + "\n\n[[ ## completed ## ]]"
        )

    return respond


@pytest.mark.parametrize("name", WRITERS)
def test_an_instruction_that_a_proposer_writes_and_the_model_likes_is_found(name, capsys):
    model = Prefers(likes=lambda r: r.messages[0].content == BETTER)
    server = Endpoint(writes(BETTER))
    with server.running() as url:
        asker = asker_of(model, chooses_examples=name == "mipro", budget=Budget(1000, 900))
        found = optimized(name, asker, endpoint(f"{url}#strong", ""), 2, 0)
    assert 1 <= len(found) <= RACED
    assert found[0].choice.instruction == BETTER
    assert server.bodies
    assert all(body["model"] == "strong" for body in server.bodies)
    # What goes to the proposer counts too.
    assert asker.budget.used_tokens == 11 * len(model.asked) + 9 * len(server.bodies)
    assert capsys.readouterr() == ("", "")


def test_bootstrap_finds_examples_that_the_model_likes_and_they_are_shown_to_every_request():
    liked = DATA.train[5]
    model = Prefers(likes=lambda r: liked.id in [e.id for e in r.examples])
    asker = asker_of(model, chooses_examples=True)
    found = optimized("bootstrap", asker, None, 3, 0)
    assert {one.choice.select for one in found} <= {"fixed", "nearest"}
    assert liked.id in found[0].choice.examples
    assert found[0].choice.k == len(found[0].choice.examples) <= 3
    made = asker.build(found[0].choice)
    assert [e.id for e in made.examples_for(DATA.task.ask(DATA.dev[0]))] == list(found[0].choice.examples)


def test_the_model_is_asked_with_the_metaprompt_and_never_shown_the_request_itself():
    model = Prefers(likes=lambda _: True)
    asker = asker_of(model, chooses_examples=True)
    optimized("bootstrap", asker, None, 2, 0)
    assert {len(r.examples) for r in model.asked} >= {0, 2}
    assert all(r.choices == DATA.task.labels for r in model.asked)
    assert not any(r.question in [e.prompt for e in r.examples] for r in model.asked)


@pytest.mark.parametrize("name", ["copro", "gepa"])
def test_an_instruction_alone_is_tried_before_the_examples_that_the_race_shows(name):
    model = Prefers(likes=lambda _: False)
    with Endpoint(writes(BETTER)).running() as url:
        asker = asker_of(model, chooses_examples=False, budget=Budget(1000, 600))
        found = optimized(name, asker, endpoint(f"{url}#strong", ""), 2, 0)
    assert {len(r.examples) for r in model.asked} == {2}
    assert {one.choice.select for one in found} == {BASE.select}


def test_nothing_is_asked_twice():
    model = Prefers(likes=lambda _: False)
    asker = asker_of(model, chooses_examples=True)
    optimized("bootstrap", asker, None, 2, 0)
    whole = [(r.question, r.messages[0].content, tuple(e.id for e in r.examples)) for r in model.asked]
    assert len(whole) == len(set(whole)) == asker.answers


def test_the_budget_ends_an_optimizer_and_what_it_found_is_kept(caplog):
    caplog.set_level("INFO")
    model = Prefers(likes=lambda r: bool(r.examples))
    asker = asker_of(model, chooses_examples=True, budget=Budget(1000, tokens=11 * (len(DATA.dev) + 6)))
    found = optimized("bootstrap", asker, None, 2, 0)
    assert found
    assert len(model.asked) <= len(DATA.dev) + 7
    assert "the budget ended DSPy's bootstrap; what it found until then takes part" in caplog.text


def test_a_proposer_that_fails_is_an_error():
    with Endpoint(lambda _: (401, {"error": {"message": "no key"}})).running() as url:
        asker = asker_of(Prefers(likes=lambda _: True), chooses_examples=False)
        with pytest.raises(EndpointError, match="HTTP 401"):
            optimized("copro", asker, endpoint(f"{url}#strong", ""), 2, 0)


def test_an_optimizer_that_fails_loses_nothing(caplog):
    with Endpoint(lambda _: (200, said("no fields at all"))).running() as url:
        model = Prefers(likes=lambda _: True)
        asker = asker_of(model, chooses_examples=False)
        asker.answer(asker.choice("Sort.", []), DATA.dev[0].prompt)
        found = optimized("copro", asker, endpoint(f"{url}#strong", ""), 2, 0)
    assert [one.choice.instruction for one in found] == ["Sort."]
    assert "few_shot: DSPy's copro ended early: " in caplog.text


def test_what_is_too_long_for_the_model_is_no_candidate():
    @dataclass(frozen=True)
    class Short(Prefers):
        def one(self, request):
            if len(request.examples) > 1:
                raise ContextTooLong("too long")
            return super().one(request)

    asker = asker_of(Short(likes=lambda _: True), chooses_examples=True)
    found = optimized("bootstrap", asker, None, 2, 0)
    assert all(one.choice.k <= 1 for one in found[1:])
    assert any(tried.failed for tried in asker.tried.values())


def test_few_answers_do_not_look_better_than_many():
    asker = asker_of(Prefers(likes=lambda _: True), chooses_examples=False)
    few, many = asker.choice("Few.", []), asker.choice("Many.", [])
    asker.answer(few, DATA.dev[0].prompt)
    for example in DATA.dev[:10]:
        asker.answer(many, example.prompt)
    assert [one.choice for one in asker.best(None)] == [many, few]
    assert [one.choice for one in asker.best(few)] == [few, many]


def test_what_was_measured_in_the_order_of_dev_is_not_asked_again():
    model = Prefers(likes=lambda r: r.messages[0].content == "Good.")
    asker = asker_of(model, chooses_examples=False)
    good = asker.choice("Good.", [])
    for example in (*DATA.dev[:5], DATA.dev[7]):
        asker.answer(good, example.prompt)
    (found,) = asker.best(None)
    assert (found.choice, len(found.scores)) == (good, 5)
    asked = len(model.asked)
    raced = search(model, DATA, asker.build, SPACE, Budget(1000), [replace(found, scores=found.scores * 99)])
    assert raced[0].choice == good
    assert not any(r.messages[0].content == "Good." for r in model.asked[asked:])


def test_what_is_known_races_even_where_no_time_is_left():
    model = Prefers(likes=lambda r: r.messages[0].content == "Good.")
    known = Tried(asker_of(model, chooses_examples=False).choice("Good.", []), [1.0] * len(DATA.dev))
    raced = search(model, DATA, asker_of(model, chooses_examples=False).build, SPACE, Budget(1e-9), [known])
    assert [tried.choice.instruction for tried in raced] == ["Good.", None]


def test_what_an_optimizer_finds_races_and_is_in_the_artefact():
    liked = DATA.train[5]
    model = Prefers(likes=lambda r: liked.id in [e.id for e in r.examples])
    made = (
        FewShot(k=3, tune=True, optimizer="bootstrap", calibrate="none", layout="chat")
        .apply(model, DATA)
        .rewrite
    )
    assert made.select == "fixed"
    assert liked.id in [e.id for e in made.shown]
    assert made.measured["tried"][0]["shown"] == [e.id for e in made.shown]
    assert made.measured["tried"][0]["score"] == 1.0


def test_it_works_on_weights_by_label_scoring():
    made = FewShot(k=2, tune=True, optimizer="bootstrap", calibrate="none", budget_s=4).apply(
        tiny_model(), DATA
    )
    assert made.rewrite.measured["tried"]
    assert made.answer([DATA.task.ask(DATA.test[0])])[0].text in DATA.task.labels


def test_the_race_has_what_the_optimizer_left_of_the_budget():
    budget = Budget(100, 50, used_tokens=20, started=time.monotonic() - 30)
    rest = budget.rest()
    assert rest.seconds == pytest.approx(70, abs=1)
    assert (rest.tokens, rest.used_tokens) == (30, 0)
    assert Budget(1, 50, used_tokens=80, started=0).rest() == replace(
        Budget(0, 0), started=pytest.approx(time.monotonic(), abs=5)
    )


@pytest.mark.parametrize(
    ("settings", "said_what"),
    [
        (
            {"optimizer": "simba", "tune": True},
            "optimizer is 'simba'; expected one of bootstrap, mipro, copro, gepa",
        ),
        (
            {"optimizer": "bootstrap"},
            "what optimizer 'bootstrap' finds races on dev, which takes tune = true",
        ),
        (
            {"optimizer": "gepa", "tune": True},
            "optimizer 'gepa' needs a strong model that writes instructions",
        ),
        (
            {"optimizer": "bootstrap", "tune": True, "select": "nearest"},
            "optimizer 'bootstrap' chooses the examples itself, and select is 'nearest', k None",
        ),
        ({"optimizer": "bootstrap", "tune": True, "k": 0}, "select is None, k 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said_what):
    with pytest.raises(RecipeError, match=re.escape(said_what)):
        FewShot(**settings)


def test_without_dspy_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dspy", None)
    with pytest.raises(Unsupported, match=re.escape("Install it (pip install 'tailorbird[dspy]')")):
        FewShot(tune=True, optimizer="bootstrap")


def test_without_dev_examples_an_optimizer_is_not_ignored():
    with pytest.raises(
        DataError, match="no dev examples that what optimizer 'bootstrap' finds could race on"
    ):
        FewShot(tune=True, optimizer="bootstrap").apply(Blank(), replace(DATA, dev=()))


def test_what_we_say_while_dspy_is_silenced_is_heard(capsys, monkeypatch):
    class ToStderr(logging.Handler):
        def emit(self, record):
            sys.stderr.write(record.getMessage() + "\n")

    monkeypatch.setattr("tailorbird.techniques.asking.EVERY_S", 0)
    handler = ToStderr()
    logging.getLogger("tailorbird").addHandler(handler)
    logging.getLogger("tailorbird").setLevel("INFO")
    try:
        optimized("bootstrap", asker_of(Prefers(likes=lambda _: False), chooses_examples=True), None, 2, 0)
    finally:
        logging.getLogger("tailorbird").removeHandler(handler)
        logging.getLogger("tailorbird").setLevel("NOTSET")
    heard = capsys.readouterr()
    assert "few_shot: the optimizer tried 2 metaprompts by" in heard.err
    assert all(line.startswith("few_shot: ") for line in heard.err.splitlines())
    assert heard.out == ""
