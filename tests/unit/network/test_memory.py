import platform
import subprocess
import sys

import pytest
import torch

from tailorbird.network.memory import available_bytes

CPU = torch.device("cpu")
GIB = 1 << 30


def machine(folder, *, groups, free_gib=8):
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {free_gib << 20} kB\n")
    (folder / "proc" / "self" / "cgroup").write_text(groups)
    return folder / "proc", folder / "cgroup"


def group(folder, names, limit, usage, stat):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{stat}\n")


V2 = ("memory.max", "memory.current")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_without_groups_the_machine_says_what_is_free(tmp_path):
    assert available_bytes(CPU, *machine(tmp_path, groups="")) == 8 * GIB


def test_the_tightest_group_above_the_process_limits_it_and_file_cache_does_not_count(tmp_path):
    proc, groups = machine(tmp_path, groups="0::/outer/inner\n")
    group(groups / "outer", V2, 3 * GIB, 2 * GIB, f"inactive_file {GIB}")
    group(groups / "outer" / "inner", V2, "max", GIB, "inactive_file 0")
    assert available_bytes(CPU, proc, groups) == 2 * GIB


def test_groups_of_the_first_version_count_too(tmp_path):
    proc, groups = machine(tmp_path, groups="5:cpu:/a\n4:memory:/a\n")
    group(groups / "memory", V1, 9223372036854771712, GIB, "total_inactive_file 0")
    group(groups / "memory" / "a", V1, 2 * GIB, GIB, "total_inactive_file 0")
    assert available_bytes(CPU, proc, groups) == GIB


def test_an_exhausted_group_leaves_nothing_and_not_less(tmp_path):
    proc, groups = machine(tmp_path, groups="0::/\n")
    group(groups, V2, GIB, 2 * GIB, "inactive_file 0")
    assert available_bytes(CPU, proc, groups) == 0


def test_this_machine_has_memory_left():
    assert 1 << 20 < available_bytes(CPU) < 1 << 60


# In a process of its own: here, what other tests leave behind is given back at any moment.
PEAK = """
import time, torch
from tailorbird.network.memory import PeakMemory, used_bytes
cpu = torch.device("cpu")
before = used_bytes(cpu)
with PeakMemory(cpu, every_s=0.001) as peak:
    held = torch.ones(64 << 20)  # 256 MiB
    time.sleep(0.2)
    del held
assert used_bytes(cpu) - before < 50 << 20
assert peak.bytes - before > 200 << 20
"""


def test_the_peak_sees_what_was_given_back_before_the_end():
    subprocess.run([sys.executable, "-c", PEAK], timeout=60, check=True)


RETURNING = """
import torch
from tailorbird.network.memory import return_freed_memory, used_bytes
return_freed_memory()
torch.ones(10_000_000).sum()  # freed, it raises what malloc keeps, unless that is set
before = used_bytes(torch.device("cpu"))
gone, kept = [], []
for _ in range(200):
    gone.append(torch.ones(250_000))
    kept.append(torch.ones(1_000))
assert used_bytes(torch.device("cpu")) - before > 150e6
gone.clear()
assert used_bytes(torch.device("cpu")) - before < 50e6
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="set where the C library is glibc")
def test_freed_memory_goes_back_to_the_system():
    subprocess.run([sys.executable, "-c", RETURNING], timeout=60, check=True)
