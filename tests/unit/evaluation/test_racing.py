import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from scripted_arms import LABELS, Builds, Scripted, classify_data

from tailorbird.evaluation.arms import ArmFinished, Begun
from tailorbird.evaluation.budget import Budget
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.racing import behind, behind_in_training, blocks
from tailorbird.records import NOT_IN_DOCUMENTS, Example

DATA = classify_data()
METRICS = default_metrics(DATA.task)


def arms(builds):
    return [
        builds.arm("tfidf_linear", lambda: Scripted(0.5, "t"), floor=True),
        builds.arm("bad", lambda: Scripted(0.05, "b")),
        builds.arm("good", lambda: Scripted(0.95, "g")),
        builds.arm("as good", lambda: Scripted(0.95, "h")),
    ]


def test_blocks_double_and_hold_every_dev_example_once():
    found = blocks(DATA.dev, "classify")
    assert [len(block) for block in found] == [16, 16, 28]
    assert sorted(index for block in found for index in block) == list(range(60))
    assert [len(b) for b in blocks([*DATA.dev, *DATA.test], "classify")] == [16, 16, 32, 116]
    assert [len(b) for b in blocks(DATA.dev[:20], "classify")] == [20]


def test_every_prefix_of_blocks_has_its_share_of_each_label():
    rare = [Example.pair(f"message {i}", LABELS[0] if i % 8 else LABELS[1]) for i in range(160)]
    for seed in range(5):
        first, second, *_ = blocks(rare, "classify", seed)
        for prefix, expected in ((first, 2), (first + second, 4)):
            counted = Counter(rare[i].completion for i in prefix)[LABELS[1]]
            assert abs(counted - expected) <= 1
    assert blocks(rare, "classify", 1) == blocks(rare, "classify", 1) != blocks(rare, "classify", 2)


def test_blocks_of_free_answers_share_out_the_unanswerable():
    asked = [Example.pair(f"q {i}", "42" if i >= 8 else NOT_IN_DOCUMENTS) for i in range(64)]
    first = blocks(asked, "answer")[0]
    assert 1 <= sum(i < 8 for i in first) <= 3


def test_an_arm_clearly_behind_is_stopped_with_the_reason_and_never_sees_test():
    builds = Builds()
    found = compare(arms(builds), DATA, METRICS, primary="accuracy", race=True)
    bad = found.arm("bad")
    assert bad.stopped
    assert bad.score is None
    assert bad.num_dev < 60
    assert bad.stopped_why.startswith(f"Clearly behind good after {bad.num_dev} of 60 dev examples: ")
    assert {arm.name for arm in found.arms if arm.ran} == {"tfidf_linear", "good", "as good"}
    assert "Stopped early, clearly behind when choosing: bad." in found.verdict.sentence
    assert "not of" not in found.verdict.sentence
    assert found.arm("good").num_dev == 60


def test_without_a_race_and_with_few_arms_everything_is_measured():
    assert not any(a.stopped for a in compare(arms(Builds()), DATA, METRICS, primary="accuracy").arms)
    two = arms(Builds())[:3]
    assert not any(a.stopped for a in compare(two, DATA, METRICS, primary="accuracy", race=True).arms)


def test_a_race_gives_the_arms_it_keeps_the_scores_that_a_full_run_gives():
    raced = compare(arms(Builds()), DATA, METRICS, primary="accuracy", race=True)
    full = compare(arms(Builds()), DATA, METRICS, primary="accuracy")
    for arm in raced.arms:
        if arm.ran:
            other = full.arm(arm.name)
            assert (arm.score, arm.low, arm.high, arm.dev_score) == (
                other.score,
                other.low,
                other.high,
                other.dev_score,
            )
    assert raced.verdict.candidate == full.verdict.candidate


def test_arms_finished_by_an_earlier_run_are_opponents(tmp_path):
    compare(arms(Builds())[2:3], DATA, METRICS, primary="accuracy", folder=tmp_path)
    builds = Builds()
    found = compare(arms(builds), DATA, METRICS, primary="accuracy", race=True, folder=tmp_path)
    assert "good" not in builds.counts
    assert found.arm("bad").stopped_why.startswith("Clearly behind good")


@pytest.mark.parametrize("quality", [0.55, 0.6, 0.65, 0.7, 0.75])
def test_a_race_that_is_taken_up_stops_the_others_where_it_would_have(tmp_path, quality):
    def raced(folder=None):
        builds = Builds()
        some = [*arms(builds)[2:], builds.arm("middling", lambda: Scripted(quality, "m"))]
        return compare(some, DATA, METRICS, primary="accuracy", race=True, folder=folder)

    # As a run leaves them that was killed when it had measured two: what was stopped is raced again.
    compare(arms(Builds())[2:], DATA, METRICS, primary="accuracy", folder=tmp_path)
    found, whole = raced(tmp_path).arm("middling"), raced().arm("middling")
    assert (found.stopped_why, found.num_dev) == (whole.stopped_why, whole.num_dev)


def test_a_stopped_arm_runs_in_full_when_the_race_is_switched_off(tmp_path):
    compare(arms(Builds()), DATA, METRICS, primary="accuracy", race=True, folder=tmp_path)
    builds = Builds()
    found = compare(arms(builds), DATA, METRICS, primary="accuracy", folder=tmp_path)
    assert builds.counts == {"bad": 1}
    assert found.arm("bad").ran


def test_an_arm_that_fails_in_a_race_is_told_and_the_others_go_on():
    from scripted_arms import Failing

    told = []
    broken = [*arms(Builds()), Builds().arm("down", Failing)]
    found = compare(broken, DATA, METRICS, primary="accuracy", race=True, on_event=told.append)
    assert "does not answer" in found.arm("down").failed
    assert found.verdict.arm in {"good", "as good"}
    ended = [event.arm for event in told if isinstance(event, ArmFinished)]
    assert sorted(ended) == sorted(arm.name for arm in broken)


def test_who_is_ahead_or_hardly_behind_races_on():
    ahead = dict.fromkeys(range(16), 1.0)
    hardly = {**ahead, 0: 0.0, 1: 0.0}
    far = {i: float(i % 3 == 0) for i in range(16)}
    found = behind({"a": ahead, "b": hardly, "c": far}, ["a", "b", "c"], num_dev=60)
    assert found.keys() == {"c"}
    assert found["c"].leader == "a"
    assert found["c"].behind == pytest.approx(10 / 16)
    assert found["c"].p <= 0.05
    assert behind({}, [], num_dev=60) == {}


def test_the_weaker_half_is_stopped_on_less_evidence():
    best = dict.fromkeys(range(16), 1.0)
    five_behind = {i: float(i >= 5) for i in range(16)}  # one-sided p = 1/32
    racing = {"a": best, "b": {**best, 15: 0.0}, "c": {**best, 14: 0.0}, "d": five_behind}
    assert behind(racing, list(racing), num_dev=60).keys() == {"d"}
    assert not behind({"a": best, "d": five_behind}, ["d"], num_dev=60)


def test_examples_of_one_document_count_as_one_when_arms_are_stopped():
    best, worse = dict.fromkeys(range(16), 1.0), dict.fromkeys(range(16), 0.0)
    assert behind({"a": best, "b": worse}, ["a", "b"], num_dev=16)
    assert not behind({"a": best, "b": worse}, ["a", "b"], num_dev=16, groups=["one", "two"] * 8)


def test_graded_scores_race_too():
    task = replace(DATA.task, kind="answer", labels=())
    data = replace(DATA, task=task)
    found = compare(arms(Builds()), data, default_metrics(task), primary="token_f1", race=True)
    assert found.arm("bad").stopped


def test_when_the_budget_ends_within_a_race_baselines_are_measured_and_the_best_is_tested_first():
    now = [0.0]

    class Slow(Scripted):
        def answer(self, requests):
            now[0] += 1.0
            return [replace(answer, seconds=0.05) for answer in super().answer(requests)]

    slow = [
        *arms(Builds())[:1],
        Builds().arm("fair", lambda: Slow(0.9, "f")),
        Builds().arm("good", lambda: Slow(0.95, "g")),
        Builds().arm("fine", lambda: Slow(0.9, "n")),
    ]
    # Three blocks of dev for each are 9 calls, the best one's test and timing 17 more.
    found = compare(
        slow, DATA, METRICS, primary="accuracy", race=True, budget=Budget(27, clock=lambda: now[0])
    )
    best = max(found.arms, key=lambda arm: arm.dev_score)
    assert {arm.name for arm in found.arms if arm.ran} == {"tfidf_linear", best.name}
    cut = [arm for arm in found.arms if not arm.ran]
    assert [arm.stopped_why for arm in cut] == ["The budget was used up while it was measured."] * 2
    assert [arm.num_dev for arm in cut] == [60, 60]


def test_an_arm_that_would_not_end_in_time_is_not_begun():
    builds = Builds()
    expected = {"bad": 3.0, "good": 100.0, "as good": 3.0}
    found = compare(
        arms(builds),
        DATA,
        METRICS,
        primary="accuracy",
        race=True,
        budget=Budget(80, clock=lambda: 0.0),
        expected_s=expected,
    )
    assert "good" not in builds.counts
    assert found.arm("good").stopped_why.startswith("It would take about 100 s, and 20 s of")
    assert found.arm("as good").ran


# -- trainings --------------------------------------------------------------------------------------


class Trained:
    """An arm whose training is scored on dev at every share that it is asked to come to."""

    def __init__(self, name, rate, *, ends_at=1.0):
        self.name, self.rate, self.ends_at, self.shares = name, rate, ends_at, []

    def begin(self, share):
        self.shares.append(share)
        if share >= self.ends_at:
            return None
        answers = Scripted(self.rate, self.name).answer([DATA.task.ask(e) for e in DATA.dev[:32]])
        scores = {e.id: METRICS["accuracy"](e, a) for e, a in zip(DATA.dev[:32], answers, strict=True)}
        return Begun(share, scores)

    def arm(self, builds):
        return builds.arm(self.name, lambda: Scripted(self.rate, self.name), begin=self.begin)


def test_what_is_clearly_behind_at_the_same_share_of_its_training_is_trained_no_further():
    weak, strong, other = Trained("weak", 0.1), Trained("strong", 0.95), Trained("other", 0.9)
    builds = Builds()
    raced = [*arms(builds)[2:], *(trained.arm(builds) for trained in (weak, strong, other))]
    found = compare(raced, DATA, METRICS, primary="accuracy", race=True)
    assert weak.shares == [0.25]
    assert strong.shares == other.shares == [0.25, 0.5]
    why = found.arm("weak").stopped_why
    assert why.startswith("Clearly behind strong when both were trained to 25% of their steps: ")
    assert why.endswith(" points on 32 dev examples; trained no further.")
    assert "weak" not in builds.counts
    assert found.arm("strong").ran


def test_a_training_alone_and_one_that_is_over_are_held_against_nothing():
    builds = Builds()
    alone = Trained("alone", 0.9)
    compare([*arms(builds)[1:], alone.arm(builds)], DATA, METRICS, primary="accuracy", race=True)
    assert alone.shares == []
    over, weak = Trained("over", 0.9, ends_at=0.25), Trained("weak", 0.0)
    compare(
        [*arms(builds)[2:], over.arm(builds), weak.arm(builds)], DATA, METRICS, primary="accuracy", race=True
    )
    assert over.shares == weak.shares == [0.25]


def test_a_training_is_held_against_those_that_an_earlier_run_has_finished(tmp_path):
    weak, strong = Trained("weak", 0.1), Trained("strong", 0.95)
    builds = Builds()
    others = [builds.arm("good", lambda: Scripted(0.95, "g")), builds.arm("too", lambda: Scripted(0.9, "h"))]
    done = replace(strong.arm(builds), paused=strong.begin)
    compare([done], DATA, METRICS, primary="accuracy", folder=tmp_path)
    raced = [*others, done, weak.arm(builds)]
    found = compare(raced, DATA, METRICS, primary="accuracy", folder=tmp_path, race=True)
    assert weak.shares == [0.25]
    assert found.arm("weak").stopped_why.startswith("Clearly behind strong when both were trained to 25%")


def test_what_was_trained_in_the_race_is_not_expected_again():
    class Clock:
        now = 0.0

    def begin(share):
        Clock.now += 60
        return Begun(share, {e.id: 1.0 for e in DATA.dev[:32]})

    def run(two_s):
        Clock.now = 0.0
        builds = Builds()
        raced = [
            builds.arm("good", lambda: Scripted(0.95, "g")),
            builds.arm("one", lambda: Scripted(0.9, "a"), begin=begin),
            builds.arm("two", lambda: Scripted(0.9, "b"), begin=begin),
        ]
        budget = Budget(400, clock=lambda: Clock.now)
        expected = {"one": 150.0, "two": two_s}
        return compare(
            raced, DATA, METRICS, primary="accuracy", race=True, budget=budget, expected_s=expected
        )

    # Of 400 s 180 are used when "two" is to be trained further, and 60 are kept for the best one's test.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailorbird.evaluation.contestant.time.perf_counter", lambda: Clock.now)
        assert all(arm.ran for arm in run(150.0).arms)
        why = run(250.0).arm("two").stopped_why
    assert why == "It would take about 190 s, and 160 s of the budget were left for it."


def test_without_a_race_nothing_is_trained_in_parts():
    weak, strong = Trained("weak", 0.1), Trained("strong", 0.95)
    builds = Builds()
    compare([*arms(builds), weak.arm(builds), strong.arm(builds)], DATA, METRICS, primary="accuracy")
    assert weak.shares == strong.shares == []


def test_trainings_are_compared_on_the_dev_examples_that_both_were_asked():
    best = Begun(0.5, {e.id: 1.0 for e in DATA.dev[:40]})
    worse = {e.id: 0.0 for e in DATA.dev[10:26]}
    found = behind_in_training({"a": best, "b": Begun(0.5, worse)}, DATA.dev)
    assert (found["b"].after, found["b"].leader, found["b"].behind) == (16, "a", 1.0)
    assert behind_in_training({"a": best, "b": Begun(0.25, worse)}, DATA.dev) == {}
    assert behind_in_training({"a": best, "b": Begun(0.5, {DATA.dev[45].id: 0.0})}, DATA.dev) == {}
    assert behind_in_training({"a": best}, DATA.dev) == {}


# -- other machines ---------------------------------------------------------------------------------


class Meeting(Scripted):
    """Answers nothing before the other side has begun to answer too."""

    def __init__(self, name, own, other):
        super().__init__(0.9, name)
        self.own, self.other, self.alone = own, other, 0

    def answer(self, requests):
        self.own.set()
        self.alone += len(requests) > 1 and not self.other.wait(5)
        return super().answer(requests)


@pytest.mark.parametrize("race", [True, False])
def test_other_machines_answer_while_this_one_works(race):
    here, there = threading.Event(), threading.Event()
    local, remote = Meeting("local", here, there), Meeting("remote", there, here)
    builds, told = Builds(), []
    raced = [
        builds.arm("remote", lambda: remote, remote=True),
        builds.arm("local", lambda: local),
        builds.arm("as good", lambda: Scripted(0.9, "h")),
    ]
    found = compare(raced, DATA, METRICS, primary="accuracy", race=race, on_event=told.append)
    assert local.alone == remote.alone == 0
    assert all(arm.ran for arm in found.arms)
    # Single answers, which are timed, come when all others are done.
    timed = [n for n, event in enumerate(told) if getattr(event, "stage", "") == "latency"]
    remotes = [n for n in timed if told[n].arm == "remote"]
    others = [n for n, event in enumerate(told) if getattr(event, "arm", "") in {"local", "as good"}]
    assert min(remotes) > max(others)


def test_together_they_give_what_they_give_one_after_another():
    def run(**settings):
        builds = Builds()
        raced = [
            builds.arm("tfidf_linear", lambda: Scripted(0.5, "t"), floor=True),
            builds.arm("bad", lambda: Scripted(0.05, "b"), **settings),
            builds.arm("good", lambda: Scripted(0.95, "g"), **settings),
            builds.arm("here", lambda: Scripted(0.9, "h")),
        ]
        found = compare(raced, DATA, METRICS, primary="accuracy", race=True)
        return [(arm.name, arm.score, arm.stopped_why, arm.num_dev) for arm in found.arms]

    assert run() == run(remote=True)


def test_when_it_is_interrupted_other_machines_are_asked_nothing_more(tmp_path):
    class Slow(Scripted):
        def answer(self, requests):
            time.sleep(0.05)
            return super().answer(requests)

    class Interrupted(Scripted):
        def answer(self, requests):
            raise KeyboardInterrupt

    slow, told = Slow(0.9, "slow"), []
    builds = Builds()
    raced = [
        builds.arm("slow", lambda: slow, remote=True),
        builds.arm("here", lambda: Interrupted(0.9, "here")),
    ]
    with pytest.raises(KeyboardInterrupt):
        compare(raced, DATA, METRICS, primary="accuracy", folder=tmp_path, on_event=told.append, batch_size=8)
    assert sum(slow.calls) <= 16
    assert not any(isinstance(event, ArmFinished) for event in told)
    assert not (tmp_path / "arms" / "slow").exists()
