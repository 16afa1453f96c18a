"""What a model uses of this machine: processors and memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_MEMORY_INFO = Path("/proc/meminfo")
_CGROUP_MEMORY = Path("/sys/fs/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")
_INT8_INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni"})
_THREADS_OF_A_LANE = 8
"""A batch of about 1,000 tokens keeps no more busy; with more threads, a second batch at the same time gains more."""


@dataclass(frozen=True, slots=True)
class CpuShare:
    """0 means: decide by the machine."""

    threads: int = 0
    """For all lanes together."""
    lanes: int = 0
    """Batches that run at once, each on an equal part of the threads."""

    def resolve(self) -> CpuShare:
        """Replace 0 by all processors, and by one lane for each eight threads."""
        threads = self.threads or available_cpus()
        return CpuShare(threads, min(threads, self.lanes or max(1, threads // _THREADS_OF_A_LANE)))


def available_cpus(quota_file: Path = _CGROUP_QUOTA) -> int:
    """The processors this process may use, by its affinity and a container's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(cpus, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cpus


def available_memory(info_file: Path = _MEMORY_INFO, group: Path = _CGROUP_MEMORY) -> int | None:
    """Bytes that this process may still allocate, by the machine and a container's limit; `None` if unknown."""
    try:
        lines = info_file.read_text("ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):  # this is not Linux
        return None
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        return max(0, min(available, limit - used))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return available


def multiplies_int8(info_file: Path = _CPU_INFO) -> bool:
    """Whether OpenVINO computes `int8` in 8 bits on this processor. It does so on x86 with VNNI only."""
    try:
        return not _INT8_INSTRUCTIONS.isdisjoint(info_file.read_text("utf-8").split())
    except OSError:  # this is not Linux, and so Apple silicon
        return False


def process_memory(pid: int) -> int | None:
    """Bytes of memory of a process; `None` if unknown. Shared pages are divided among their processes."""
    try:
        rolled = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:  # it has ended, or this is not Linux
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in rolled.splitlines() if line.startswith("Pss:")), None
    )
