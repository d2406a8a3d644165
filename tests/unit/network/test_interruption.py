import os
import signal
import threading
from dataclasses import replace

import pytest
import torch
from test_training import SETTINGS, assert_equal, run

from tailorbird.network.interruption import postponed_signals

RARELY = replace(SETTINGS, checkpoint_every_steps=100)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture
def terminate():
    """SIGTERM as the command line hears it."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, usual)


def signal_at(step, number):
    def on_step(report):
        if report.step == step:
            signal.raise_signal(number)

    return on_step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_step_under_way_and_ends_the_run(tmp_path, terminate, number):
    with pytest.raises(KeyboardInterrupt):
        run(settings=RARELY, checkpoint=tmp_path, on_step=signal_at(3, number))
    reports = []
    resumed, _ = run(settings=RARELY, checkpoint=tmp_path, on_step=reports.append)
    assert reports[0].step == 4
    assert_equal(resumed, run()[0])


def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(tmp_path):
    def score():
        signal.raise_signal(signal.SIGINT)
        return 0.5

    reports = []
    with pytest.raises(KeyboardInterrupt):
        run(settings=RARELY, checkpoint=tmp_path, dev_score=score, on_step=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5]
    assert reports[-1].score == 0.5


def test_without_a_folder_for_checkpoints_nothing_is_waited_for():
    def score():
        signal.raise_signal(signal.SIGINT)
        return 0.5

    reports = []
    with pytest.raises(KeyboardInterrupt):
        run(dev_score=score, on_step=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4]


def test_what_handles_the_signal_otherwise_is_asked_and_the_run_ends_all_the_same(tmp_path):
    heard = []
    usual = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            run(settings=RARELY, checkpoint=tmp_path, on_step=signal_at(2, signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert heard == [signal.SIGTERM]


def test_the_second_signal_is_delivered_at_once():
    with postponed_signals() as noted:
        signal.raise_signal(signal.SIGINT)
        assert noted() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_signals_do_is_as_before_after_a_run(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(checkpoint=tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path):
    threads = torch.get_num_threads()
    found = []

    def work():
        torch.set_num_threads(threads)
        found.append(run(checkpoint=tmp_path)[1].steps)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [10]
