import math
from dataclasses import replace

import pytest

from tailorbird.data.task import Data
from tailorbird.errors import RecipeError, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.models.model import Wrapped
from tailorbird.records import ABSTAINED, Completion, Example, Message, Prior, Request
from tailorbird.techniques.few_shot import FewShot, Metaprompt
from tailorbird.techniques.metaprompt_file import read_fields
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_model

DATA = tiny_data()
TASK = DATA.task


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


def made(data=DATA, model=None, **settings) -> Metaprompt:
    return FewShot(**settings).apply(model or Blank(), data).rewrite


# -- what is shown ------------------------------------------------------------------------------


def test_the_hybrid_shows_one_set_to_all_and_then_the_nearest():
    hybrid = made(k=5, select="hybrid", core=2)
    first, second = (hybrid.examples_for(TASK.ask(e)) for e in DATA.test[:2])
    assert first[:2] == second[:2]
    assert first[2:] != second[2:]
    assert len({e.id for e in first}) == 5


def test_the_nearest_may_stand_first():
    last, first = (made(k=3, order=order) for order in ("nearest_last", "nearest_first"))
    request = TASK.ask(DATA.test[0])
    assert first.examples_for(request) == last.examples_for(request)[::-1]


@pytest.mark.parametrize("select", ["nearest", "mmr", "hybrid", "balanced", "k_medoids"])
def test_an_example_is_not_shown_what_says_nearly_the_same(select):
    long = "when will my parcel with the two blue bicycle lamps be delivered to my house"
    twins = [
        Example.pair(long, "order"),
        Example.pair(long + ", please", "order"),
        Example.pair(long + " now", "order"),
    ]
    data = Data(TASK, (*twins, *DATA.train[:6]))
    shown = made(data, k=5, select=select).examples_for(TASK.ask(twins[0]))
    assert {e.id for e in shown}.isdisjoint(e.id for e in twins)
    assert shown
    asked = made(data, k=3).examples_for(TASK.request([Message("user", long)]))
    assert {e.id for e in asked} >= {e.id for e in twins}


def test_a_training_example_that_nearly_equals_one_of_dev_is_never_shown(caplog):
    long = "when will my parcel with the two blue bicycle lamps be delivered to my house"
    data = Data(TASK, (Example.pair(long, "order"), *DATA.train), (Example.pair(long + " now", "order"),))
    shown = made(data, k=3).pool
    assert long not in [e.prompt for e in shown]
    assert "1 training examples that nearly equal a dev example are not shown" in caplog.text


def test_requests_are_shown_examples_of_their_own_task():
    def told(instruction, prompt, completion):
        return Example((Message("system", instruction), Message("user", prompt)), completion)

    train = [told("Say the colour.", f"sky {n}", "blue") for n in range(4)]
    train += [told("Say the taste.", f"lemon {n}", "sour") for n in range(4)]
    for select in ("nearest", "balanced", "hybrid"):
        several = made(Data(TASK, tuple(train)), k=2, select=select)
        request = Request((Message("system", "Say the taste."), Message("user", "sky 1")))
        assert [e.completion for e in several.examples_for(request)] == ["sour", "sour"]


def test_labels_are_described_after_the_instruction():
    described = made(k=0, descriptions={"order": "parcels", "repair": "broken things"})
    request = described(TASK.ask(DATA.test[0]))
    assert request.messages[0].content == f"{TASK.instruction}\n- order: parcels\n- repair: broken things"


# -- what is known of the labels ------------------------------------------------------------------


def test_calibration_on_dev_makes_a_leaning_model_right():
    class Leaning(Blank):
        """Likes `payment` best, and the right label a little more than usual."""

        def answer(self, requests):
            return [self.one(r) for r in requests]

        def one(self, request):
            known = (e.completion for e in (*DATA.dev, *DATA.test) if e.prompt == request.question)
            right = next(known, None)
            own = {c: math.exp(2.0 * (c == right) + 4.0 * (c == "payment")) for c in request.choices}
            prior = request.prior or Prior((0.0,) * len(own))
            scored = {
                c: prior.trust * math.log(p) + w
                for (c, p), w in zip(own.items(), prior.log_weights, strict=True)
            }
            total = sum(map(math.exp, scored.values()))
            chances = {c: math.exp(s) / total for c, s in scored.items()}
            return Completion(max(chances, key=chances.get), "choice", probabilities=chances, asked=request)

    base = Leaning()
    requests, right = [TASK.ask(e) for e in DATA.test], [e.completion for e in DATA.test]
    plain = FewShot(k=1, select="fixed", calibrate="none").apply(base, DATA)
    mended = FewShot(k=1, select="fixed").apply(base, DATA)
    assert {a.text for a in plain.answer(requests)} == {"payment"}
    assert [a.text for a in mended.answer(requests)] == right
    measured = mended.rewrite.measured
    assert measured["score"] > 0.8
    assert measured["low"] < measured["score"] <= measured["high"]
    assert measured["examples"] == len(DATA.dev)


def test_neighbours_vote_on_labels():
    voting = made(k=1, calibrate="neighbours")
    prior = voting(TASK.ask(DATA.test[0])).prior
    best = max(zip(prior.log_weights, TASK.labels, strict=True))[1]
    assert best == DATA.test[0].completion


def test_a_wrappers_prior_outside_weighs_what_the_metaprompt_makes_of_it():
    inner = made(k=1, calibrate="neighbours")
    own = inner(TASK.ask(DATA.test[0])).prior
    outer = Prior((0.1, 0.2, 0.3), 0.5)
    both = inner(replace(TASK.ask(DATA.test[0]), prior=outer)).prior
    assert both.trust == 0.5 * own.trust
    assert both.log_weights == pytest.approx(
        [0.5 * a + b for a, b in zip(own.log_weights, outer.log_weights, strict=True)]
    )
    assert made(k=1, calibrate="none")(replace(TASK.ask(DATA.test[0]), prior=outer)).prior == outer


def test_a_shortlist_rules_out_labels_that_no_near_example_bears():
    model = FewShot(k=1, calibrate="none", shortlist=2).apply(tiny_model(), DATA)
    requests = [TASK.ask(e) for e in DATA.test]
    for request, answer in zip(requests, model.answer(requests), strict=True):
        kept = model.rewrite.label_candidates(request, 2)
        assert answer.text in kept
        assert sum(answer.probabilities[label] for label in kept) > 0.999


def test_a_shortlist_says_how_often_it_holds_the_right_label(caplog):
    caplog.set_level("INFO")
    assert made(k=1, calibrate="none", shortlist=2).shortlist == 2
    assert "a shortlist of 2 labels holds the right one in 100.0 % of dev" in caplog.text
    wrong = [replace(e, completion="payment", id="") for e in DATA.dev if e.completion == "order"]
    caplog.clear()
    made(replace(DATA, dev=tuple(wrong)), k=1, calibrate="none", shortlist=2)
    assert caplog.records[-1].levelname == "WARNING"


def test_without_a_shortlist_that_is_good_enough_all_labels_stay(caplog):
    labels = tuple(f"label {n}" for n in range(12))
    train = tuple(Example.pair(f"word{n} {m}", labels[n]) for n in range(12) for m in "xyz")
    dev = tuple(Example.pair("word0 w", label) for label in labels)
    data = Data(replace(TASK, labels=labels), train, dev)
    assert made(data, k=1, calibrate="none", shortlist=0).shortlist is None
    assert "no shortlist of up to 10 labels holds the right one in 99 % of dev" in caplog.text


def test_an_unsure_model_abstains_and_says_on_dev_how_often():
    sure = FewShot(k=1, precision=0.9, calibrate="none").apply(tiny_model(), DATA)
    answers = sure.answer([TASK.ask(e) for e in DATA.test])
    threshold = sure.rewrite.abstain_below
    assert 0 < threshold < 1
    for answer in answers:
        assert (answer.text == ABSTAINED) == (max(answer.probabilities.values()) < threshold)
    assert 0 <= sure.rewrite.measured["answered"] <= 1


def test_where_no_threshold_is_enough_that_is_said(caplog):
    wrong = replace(
        DATA, dev=tuple(replace(e, completion="payment", id="") for e in DATA.dev if e.completion == "order")
    )
    made(wrong, model=tiny_model(), k=1, calibrate="none", precision=0.99)
    assert (
        "no threshold makes 99 % of the answers right on dev, so the model will say (unsure)" in caplog.text
    )


def test_to_abstain_or_to_be_calibrated_by_name_needs_probabilities():
    class Silent(Blank):
        def answer(self, requests):
            return [Completion("order", asked=r) for r in requests]

    silent = Silent()
    for settings in ({"precision": 0.9}, {"calibrate": "affine"}):
        with pytest.raises(Unsupported, match="the model gives no probabilities of labels"):
            FewShot(k=1, select="fixed", **settings).apply(silent, DATA)
    assert FewShot(k=1, select="fixed").apply(silent, DATA).rewrite.measured == {}


# -- the file -----------------------------------------------------------------------------------------


SETTINGS = {
    "nearest": {"k": 3, "descriptions": {"order": "parcels"}},
    "hybrid": {"k": 3, "select": "hybrid", "layout": "plain", "prompt_tokens": 300},
    "balanced": {"k": 2, "select": "balanced", "instruction": 'Say "yes".\nOr """no""".'},
    "channel": {"k": 2, "calibrate": "channel"},
    "neighbours": {"k": 2, "select": "balanced", "calibrate": "neighbours", "shortlist": 2, "precision": 0.8},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_file_says_all_of_it(name, tmp_path):
    from tailorbird.techniques.metaprompt import load_metaprompt

    before = made(model=tiny_model(), **SETTINGS[name])
    after = load_metaprompt(tmp_path, before.save(tmp_path))
    assert after == before
    for example in (*DATA.test, *DATA.train[:3]):
        assert after(TASK.ask(example)) == before(TASK.ask(example))


def test_an_edit_is_the_next_version_and_keeps_the_one_before():
    first = made(k=2, select="balanced")
    text = first.text.replace("k = 2", "k = 1").replace(first.shown[0].prompt, "quite another question")
    second = first.edited(text, "m")
    assert (second.version, second.versions, second.k) == (2, (first.text,), 1)
    assert second.shown[0].prompt == "quite another question"
    assert second.shown[0].id != first.shown[0].id
    assert second.shown[1].id == first.shown[1].id


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("k = 2", "k = ", "m: not valid TOML"),
        ("k = 2", "k = 17", "m: k is 17; expected a whole number from 0 to 16"),
        ("k = 2", "k = true", "m: k is True; expected a whole number"),
        ("k = 2", "k = 5", "m: 5 examples are to be shown to every request, and the file has 3"),
        ("k = 2", "kay = 2", "m: unknown key 'kay'. Known: version, k,"),
        ('layout = "chat"', 'layout = "chatty"', "m: layout is 'chatty'; expected one of chat, plain"),
        ('select = "balanced"', 'select = "nearest"', "m: select = 'nearest'.*need the examples to choose from"),
        ("abstain_below = 0.0", "abstain_below = 1.0", "m: abstain_below is 1.0; expected a number from 0"),
        ("k = 2", "k = 2\ninstruction = 3", "m: instruction is 3; expected a text"),
        ("k = 2", "k = 2\ndescriptions = 3", "m: descriptions is 3; expected label ="),
        ("completion = ", "answer = ", "m: example 1 has no completion"),
        ("prompt = ", "question = ", "m: example 1: unknown key 'question'"),
        ("prompt = ", "messages = ", "m: example 1 has no prompt"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused(old, new, message):
    first = made(k=2, select="balanced", calibrate="none")
    assert old in first.text
    with pytest.raises(RecipeError, match=message):
        first.edited(first.text.replace(old, new, 1), "m")


def test_a_calibration_that_holds_no_numbers_is_refused():
    with pytest.raises(RecipeError, match=r"m: calibration is .*expected a table with kind = one of none"):
        read_fields('k = 1\n[calibration]\nkind = "magic"', "m")
    with pytest.raises(RecipeError, match="m: calibration holds something that is no number"):
        read_fields('k = 1\n[calibration]\nkind = "affine"\ntrust = "much"', "m")


def test_a_metaprompt_is_fitted_again_to_what_is_trained_beneath_it():
    from tailorbird.techniques.fine_tune import FineTune

    wrapped = FewShot(k=1, select="balanced").apply(tiny_model(), DATA)
    tuned = FineTune(epochs=8, learning_rate=0.01, rank=4).apply(wrapped, DATA)
    assert isinstance(tuned, Wrapped)
    assert tuned.rewrite.measured != wrapped.rewrite.measured
    assert tuned.rewrite.calibration != wrapped.rewrite.calibration
