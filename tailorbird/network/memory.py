"""How much memory this process holds, may still take, and held at its peak; in bytes, per device."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

UNLIMITED = 1 << 60
"""What control groups write for "no limit" is above this."""
M_MMAP_THRESHOLD = -3
"""The number of the option in glibc's malloc.h."""
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def used_bytes(device: torch.device) -> int:
    """What this process holds now: tensors on a CUDA device, else its resident memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int((PROC / "self" / "statm").read_text().split()[1])
    except OSError:  # not Linux: the peak so far is the nearest that can be known
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def available_bytes(device: torch.device, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """What this process may take besides what it holds: of the device, the machine, its control groups."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(0, min(_of_machine(proc), *_of_groups(proc, cgroups), UNLIMITED))


def _of_machine(proc: Path) -> int:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(facts["MemAvailable"].split()[0]) * 1024


def _of_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What every limit above this process leaves; version 2 of control groups, then version 1."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left_in(cgroups, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
            yield from _left_in(cgroups / "memory", path, limit, usage, "total_inactive_file")


def _left_in(root: Path, path: str, limit: str, usage: str, file_cache: str) -> Iterator[int]:
    folder = root / path.lstrip("/")
    for group in (folder, *folder.parents):
        try:
            allowed, held = (group / limit).read_text().strip(), int((group / usage).read_text())
            cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            allowed, held, cached = "max", 0, dict[str, str]()
        if allowed != "max" and int(allowed) < UNLIMITED:
            yield int(allowed) - held + int(cached.get(file_cache, 0))
        if group == root:
            return


def return_freed_memory() -> None:
    """From now on the system gets back what is freed, from 256 KiB on; where the C library is glibc.

    By itself it keeps more and more of what comes and goes, as layers that are gathered do: of 0.8 GB in use
    after steps of two processes that shared 88 million weights, 2.2 GB were held.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    set_option(M_MMAP_THRESHOLD, 256 * 1024)


class PeakMemory:
    """The most that the process held while the block ran, in `bytes`.

    Exact on a CUDA device; elsewhere looked up every few milliseconds by a thread.
    """

    def __init__(self, device: torch.device, every_s: float = 0.02) -> None:
        self.device = device
        self.bytes = 0
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peak memory")

    def __enter__(self) -> Self:
        self.bytes = used_bytes(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
            return
        self._ended.set()
        self._thread.join()
        self.bytes = max(self.bytes, used_bytes(self.device))

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self.bytes = max(self.bytes, used_bytes(self.device))
