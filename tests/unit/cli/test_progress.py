import io
import re

import pytest

from tailorbird.cli.estimating import show_estimates
from tailorbird.cli.progress import Board, LiveProgress, PlainProgress, progress_on, score_text, step_text
from tailorbird.evaluation.arms import ArmFinished, ArmStarted, ExtrasStarted, StageProgress, VerdictSoFar
from tailorbird.evaluation.verdict import Verdict
from tailorbird.network.estimate import TrainingEstimate
from tailorbird.workbench import TrainingEstimated, TrainingProgress

ARMS = ["base", "fine_tune", "few_shot"]


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def plain(clock):
    return PlainProgress(io.StringIO(), ARMS, clock)


def lines(progress):
    return progress._stream.getvalue().splitlines()


def so_far(finished, sentence="Use base."):
    return VerdictSoFar(Verdict("winner", "base", sentence), finished, 3)


def test_a_quick_arm_takes_two_lines(plain, clock):
    plain(ArmStarted("base", 0, 3))
    for done in range(0, 128, 32):
        clock.now += 0.1
        plain(StageProgress("base", "test", done, 128))
    plain(ArmFinished("base", "done", 0.8125, 0.75, 0.861))
    assert lines(plain) == ["[1/3] base: started", "[1/3] base: 81.2 % (75.0 to 86.1), 0 s"]


def test_a_slow_arm_tells_each_stage_and_is_never_silent_for_long(plain, clock):
    plain(ArmStarted("fine_tune", 1, 3))
    for step in range(1, 61):
        clock.now += 1
        plain(TrainingProgress("fine_tune", step, 60, 1 / step))
    clock.now += 3
    plain(StageProgress("fine_tune", "dev", 32, 80))
    told = lines(plain)
    assert told[1] == "[2/3] fine_tune: training 2 of 60, loss 0.500"
    assert len(told) == 2 + 3 + 1
    assert told[-1] == "[2/3] fine_tune: choosing 32 of 80"


def test_an_arm_that_failed_stopped_or_was_finished_before_says_so(plain):
    plain(ArmFinished("base", "done", 0.5, 0.4, 0.6, reused=True))
    plain(ArmFinished("fine_tune", "failed", message="no such base"))
    plain(ArmFinished("few_shot", "stopped"))
    assert lines(plain) == [
        "[1/3] base: 50.0 % (40.0 to 60.0), from an earlier run",
        "[2/3] fine_tune: failed: no such base",
        "[3/3] few_shot: stopped",
    ]


def test_the_first_verdict_is_told_once_two_arms_can_be_compared(plain):
    plain(so_far(1, "Undecided: only base was measured."))
    plain(so_far(2))
    plain(so_far(3, "Use few_shot."))
    assert lines(plain) == ["So far, 2 of 3 arms: Use base."]


def test_plain_lines_hold_no_control_characters(plain):
    plain(ArmFinished("base", "failed", message="the endpoint said \x1b[31mno\x1b[0m"))
    assert "\x1b" not in plain._stream.getvalue()


def test_an_event_of_an_arm_that_was_not_announced_gets_a_line(plain):
    plain(ArmStarted("late", 3, 4))
    assert lines(plain) == ["[4/4] late: started"]


def test_an_event_of_an_unknown_kind_is_passed_over(plain):
    plain(object())
    assert lines(plain) == []


def test_loss_is_shown_only_while_training(clock):
    board = Board(ARMS, clock)
    board.apply(TrainingProgress("base", 3, 9, 0.25))
    assert step_text(board.lines["base"]) == "training 3 of 9, loss 0.250"
    board.apply(StageProgress("base", "dev", 0, 8))
    assert step_text(board.lines["base"]) == "choosing 0 of 8"


def test_training_tells_the_score_its_metric_the_speed_and_what_is_left(plain, clock):
    clock.now += 20
    plain(TrainingProgress("fine_tune", 12, 640, 0.4123, 0.8234, "accuracy", 1310.4, 125.0))
    told = "training 12 of 640, loss 0.412, dev score 0.823 (accuracy), 1,310 tokens/s, 2 min 05 s left"
    assert step_text(plain._board.lines["fine_tune"]) == told


ESTIMATE = TrainingEstimate(
    stage="fine_tune",
    device="cpu",
    steps=96,
    evaluations=4,
    tokens=46_080,
    shared_tokens=15_000,
    flops=1e12,
    step_s=2.5,
    evaluation_s=2.5,
    held_bytes=1_000_000_000,
    state_bytes=100_000_000,
    activation_bytes=900_000_000,
    available_bytes=16_000_000_000,
    largest_batch_tokens=900,
    longest=150,
    num_trained=4_884_480,
)
TOLD = (
    "fine_tune takes about 4 min 10 s for 96 steps over 46,080 tokens (33% of them shared and computed once), "
    "4 evaluations on dev of 2.5 s, fewer if it stops early; "
    "up to 2.0 GB of memory, 1.0 GB more than now, 16.0 GB free"
)


def test_what_training_will_take_is_told_before_it_starts(plain):
    plain(TrainingEstimated("fine_tune", ESTIMATE))
    assert lines(plain) == [f"[2/3] fine_tune: {TOLD}"]


def test_on_a_terminal_the_estimate_stays_above_the_moving_lines():
    stream = Terminal()
    with LiveProgress(stream, ["fine_tune"]) as show:
        show(TrainingEstimated("fine_tune", ESTIMATE))
    shown = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).split())
    assert f"fine_tune: {TOLD}" in shown


def test_estimates_of_several_trainings_are_summed_up(capsys):
    show_estimates({"a": [ESTIMATE, ESTIMATE]})
    assert capsys.readouterr().out.splitlines()[-1] == "Together about 8 min 20 s of training."
    show_estimates({"base": []})
    assert capsys.readouterr().out == "Nothing would be trained.\n"


def test_the_time_of_an_arm_runs_from_its_first_event_to_its_last(clock):
    board = Board(ARMS, clock)
    assert board.lines["base"].elapsed_s(clock()) == 0
    board.apply(ArmStarted("base", 0, 3))
    clock.now += 5
    assert board.lines["base"].elapsed_s(clock()) == 5
    board.apply(ArmFinished("base", "done"))
    clock.now += 50
    assert board.lines["base"].elapsed_s(clock()) == 5


def test_a_score_without_an_interval_stands_alone():
    assert score_text(0.5, None, None) == "50.0 %"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def without_codes(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_gets_one_live_line_an_arm_and_the_verdict_so_far(terminal):
    show = progress_on(terminal, ARMS)
    assert isinstance(show, LiveProgress)
    with show:
        show(ArmFinished("base", "done", 0.8125, 0.75, 0.861))
        show(TrainingProgress("fine_tune", 12, 640, 0.4123))
        show(so_far(2, "Use [base]: right on 65."))
        show._live.refresh()
    drawn = without_codes(terminal.getvalue())
    assert "81.2 % (75.0 to 86.1)" in drawn
    assert "training 12 of 640, loss 0.412" in drawn
    assert "few_shot" in drawn
    assert "waiting" in drawn
    assert "So far, 2 of 3 arms: Use [base]: right on 65." in drawn


def test_live_lines_vanish_when_done_and_stay_when_cut_short(terminal):
    with progress_on(terminal, ARMS):
        pass
    ended = terminal.getvalue()
    with pytest.raises(KeyboardInterrupt), progress_on(terminal, ARMS):
        raise KeyboardInterrupt
    cut_short = terminal.getvalue()[len(ended) :]
    assert ended.endswith("\x1b[1A\x1b[2K" * 3)
    assert not cut_short.endswith("\x1b[2K")


def test_a_pipe_gets_plain_lines():
    assert isinstance(progress_on(io.StringIO(), ARMS), PlainProgress)


EXTRAS = ExtrasStarted(("base, draw 1", "base, draw 2"), Verdict("winner", "base", "Use base."))


def test_the_verdict_is_said_before_what_is_measured_beside_it_and_counted_on(plain):
    for name in ARMS:
        plain(ArmFinished(name, "done", 0.5, 0.4, 0.6))
    plain(EXTRAS)
    plain(ArmStarted("base, draw 1", 0, 2))
    assert lines(plain)[3:] == [
        "Use base.",
        "Now what more would buy, in 2 measurements:",
        "[4/5] base, draw 1: started",
    ]


def test_a_board_shows_what_is_still_to_be_measured_and_the_verdict():
    board = Board(ARMS)
    board.apply(EXTRAS)
    assert [*board.lines] == [*ARMS, "base, draw 1", "base, draw 2"]
    assert board.lines["base, draw 2"].status == "waiting"
    assert board.verdict == "Use base."


def test_a_training_that_waits_for_the_others_says_so(plain, clock):
    plain(StageProgress("fine_tune", "build", 0, 1))
    clock.now += 60
    plain(StageProgress("fine_tune", "paused", 50, 100))
    assert lines(plain)[-1] == "[2/3] fine_tune: paused, 50 % trained, until the others are as far"
