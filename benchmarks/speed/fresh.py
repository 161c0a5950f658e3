"""Work in a process of its own: nothing of earlier work is in its memory, its threads or its libraries' settings."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, get_start_method, set_start_method
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.common import confine

COUNTED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MIB = 2**20
Result = TypeVar("Result")


def fresh(threads: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """`work(*arguments)` in a new process that has so many cores; the result is copied back."""
    before = {name: os.environ.get(name) for name in COUNTED}
    os.environ.update({name: str(threads) for name in COUNTED})
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_confined, get_start_method(), threads, work, *arguments).result()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _confined(method: str, threads: int, work: Callable[..., Result], *arguments: Any) -> Result:
    set_start_method(method, force=True)  # a spawned process would spawn its loader workers, as no user's does
    confine(threads)
    return work(*arguments)


def growth(work: Callable[[], object]) -> float:
    """MiB by which the memory of this process is larger, at its largest, during `work` than before it; Linux only.

    Read from the kernel's account of this process: `getrusage` also counts what the parent had.
    """
    RESET.write_text("5")  # forgets the largest size so far
    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) / MIB


def resident(line: str) -> int:
    """Bytes: VmRSS now, VmHWM at most."""
    found = re.search(rf"{line}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None, line
    return 1024 * int(found[1])
