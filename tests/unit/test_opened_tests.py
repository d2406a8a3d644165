import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

from tailorbird.data.task import Data, Task
from tailorbird.evaluation.arms import Arm, ArmFinished, ArmStarted
from tailorbird.evaluation.openings import Seen
from tailorbird.opened_tests import OpenedTests, watched
from tailorbird.records import Example

TASK = Task("answer", "Answer.")
SEEN = Seen("t", "k", "o", "base", "run", "starter", "2026-01-01")


def examples(start, stop):
    return tuple(Example.pair(f"question {i}", f"answer {i}") for i in range(start, stop))


def data(test=(90, 100), train=(0, 60)):
    return Data(TASK, examples(*train), examples(60, 90), examples(*test))


def hear(opened, given, *names, run="run-1", key="1", status="done"):
    arms = [Arm(name, lambda: None, f"{name} {key}") for name in names]
    told = []
    watch = watched(opened, arms, given, run, "starter", told.append)
    for number, name in enumerate(names):
        watch(ArmStarted(name, number, len(names)))
        watch(ArmFinished(name, status))
    return told


def test_arms_that_were_measured_are_kept_and_every_event_is_passed_on(tmp_path):
    opened = OpenedTests(tmp_path / "openings")
    told = hear(opened, data(), "base", "few_shot")
    assert [type(event) for event in told] == [ArmStarted, ArmFinished] * 2
    past = opened.past(data())
    assert (past.count, past.num_arms, past.num_test) == (1, 2, 10)
    assert past.each[0].run == "run-1"


def test_the_same_comparison_repeated_or_taken_up_again_opens_nothing(tmp_path):
    opened = OpenedTests(tmp_path)
    hear(opened, data(), "base", "few_shot")
    before = opened.file.read_bytes()
    hear(opened, data(), "base", "few_shot")
    assert opened.file.read_bytes() == before
    arms = [Arm(name, lambda: None, f"{name} 2") for name in ("one", "two")]
    for half in (["one"], ["one", "two"]):  # killed after its first arm, and taken up again
        watch = watched(opened, arms, data(), "run-2", "starter", None)
        for name in half:
            watch(ArmFinished(name, "done"))
    assert opened.past(data()).count == 2


def test_other_settings_another_training_set_and_another_arm_open_it_again(tmp_path):
    opened = OpenedTests(tmp_path)
    hear(opened, data(), "base", "few_shot")
    hear(opened, data(), "base", "few_shot", key="2")
    assert opened.past(data()).count == 2
    hear(opened, data(), "base", "few_shot", "fine_tune", key="2")
    assert opened.past(data()).each[-1].arms == ("fine_tune",)
    hear(opened, data(train=(0, 50)), "base", key="2", run="run-2")
    past = opened.past(data())
    assert (past.count, past.num_arms) == (4, 6)


def test_what_was_not_measured_on_test_opens_nothing(tmp_path):
    opened = OpenedTests(tmp_path)
    hear(opened, data(), "base", status="failed")
    hear(opened, data(), "base", status="stopped")
    assert opened.past(data()).count == 0
    assert not opened.file.exists()


def test_examples_of_other_opened_test_sets_are_noticed(tmp_path):
    opened = OpenedTests(tmp_path)
    hear(opened, data(), "base")
    assert opened.past(data(test=(95, 105))).elsewhere == 5
    moved = Data(TASK, examples(0, 95), examples(100, 105), examples(105, 115))
    assert opened.past(moved).now_learnt == 5
    assert opened.past(data()).elsewhere == 0


def add_many(folder, name):
    for number in range(50):
        OpenedTests(folder).add(replace(SEEN, key=f"{name} {number}"), ["a"])


def test_several_processes_write_at_once_and_no_line_is_lost_or_torn(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_many, args=(tmp_path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted({one.key for one in OpenedTests(tmp_path).read()}) == sorted(
        f"{name} {number}" for name in "abc" for number in range(50)
    )


def test_killed_while_it_writes_it_leaves_whole_lines(tmp_path):
    program = (
        "import itertools, pathlib, sys\n"
        "from dataclasses import replace\n"
        "from tailorbird.opened_tests import OpenedTests\n"
        "from tailorbird.evaluation.openings import Seen\n"
        "one = Seen('t', 'k', 'o', 'base', 'run', 'starter', 'd' * 2000)\n"
        "opened = OpenedTests(pathlib.Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    opened.add(replace(one, key=str(n)), ['a'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    opened = OpenedTests(tmp_path)
    until = time.monotonic() + 60
    while len(opened.read()) < 20 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = opened.read()
    assert [one.key for one in kept] == [str(n) for n in range(len(kept))]
    assert len(kept) >= 20
    assert opened.file.read_bytes().endswith(b"\n")


def test_a_line_torn_by_a_power_cut_is_passed_over_and_the_next_one_stands_alone(tmp_path):
    opened = OpenedTests(tmp_path)
    opened.add(SEEN, ["a"])
    with opened.file.open("ab") as file:
        file.write(b'{"test": "t", "ke')
    opened.add(replace(SEEN, key="k2"), ["a"])
    assert [one.key for one in opened.read()] == ["k", "k2"]
    assert json.loads(opened.file.read_bytes().splitlines()[-1])["key"] == "k2"
    (tmp_path / "t.json").write_text("[torn")
    assert opened.past(data()).elsewhere == 0
