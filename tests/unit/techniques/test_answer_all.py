from dataclasses import dataclass, field

from tailorbird.models.blank import Blank
from tailorbird.techniques import metaprompt_search
from tailorbird.techniques.asking import EVERY_S, PART, Pace, answer_all
from tailorbird.techniques.metaprompt_search import Budget, Choice, race
from tailorbird.testing.tiny import tiny_data

DATA = tiny_data()


@dataclass
class Clock:
    """Goes on by so many seconds with every look at it."""

    step: float
    now: float = 0.0

    def __call__(self):
        self.now += self.step
        return self.now


@dataclass(frozen=True)
class Counting(Blank):
    sizes: list = field(default_factory=list)

    def answer(self, requests):
        self.sizes.append(len(requests))
        return super().answer(requests)


def requests(count):
    return [DATA.task.ask(DATA.dev[n % len(DATA.dev)]) for n in range(count)]


def test_all_are_answered_in_order_and_in_parts():
    model = Counting()
    asked = requests(2 * PART + 3)
    answers = answer_all(model, asked, "few_shot")
    assert model.sizes == [PART, PART, 3]
    assert [a.asked for a in answers] == [a.asked for a in Blank().answer(asked)]


def test_how_far_it_is_is_said_where_it_takes_long(caplog):
    caplog.set_level("INFO")
    answer_all(Blank(), requests(3 * PART), "linear_prior", Pace(Clock(EVERY_S)))
    assert caplog.messages == [
        f"linear_prior: {PART} of {3 * PART} dev examples are answered.",
        f"linear_prior: {2 * PART} of {3 * PART} dev examples are answered.",
    ]


def test_nothing_is_said_where_it_is_quick(caplog):
    caplog.set_level("INFO")
    answer_all(Blank(), requests(3 * PART), "linear_prior", Pace(Clock(EVERY_S / 100)))
    assert caplog.messages == []


def test_a_race_says_how_far_it_is(caplog, monkeypatch):
    from tailorbird.techniques.few_shot import FewShot

    def build(choice):
        return FewShot(k=choice.k, select="balanced", calibrate="none").apply(Blank(), DATA).rewrite

    caplog.set_level("INFO")
    monkeypatch.setattr(metaprompt_search, "Pace", lambda: Pace(Clock(EVERY_S)))
    race(Blank(), DATA, build, [Choice(k=1), Choice(k=2)], Budget(1000))
    assert (
        f"few_shot: 1 of 2 metaprompts have answered {len(DATA.dev)} dev examples; the best has"
        in caplog.text
    )
