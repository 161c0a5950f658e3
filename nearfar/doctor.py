"""`nearfar doctor`: what on this machine would stop or slow a run, and the line to type against it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FREE_DISK = 2e9
"""Bytes. 100,000 images of 64 px take 1.2 GB decoded; a checkpoint of a ResNet-50 with its optimiser 0.2 GB."""

FREE_SHARED = 128 << 20
"""Bytes. Containers start with 64 MiB of shared memory, too little for processes that exchange batches."""

OPEN_FILES = 512
"""A run of several processes keeps a few hundred files and sockets open."""

EXTRAS = {"demo": "mlxtend", "timm": "timm"}
"""Extra -> the package that it brings."""


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Args:
        name: What was looked at.
        ok: False where it should be mended.
        found: What is there.
        mend: What to type; where `ok`, an offer.
    """

    name: str
    ok: bool
    found: str
    mend: str = ""


def checks(*, cache: Path | None = None, out: Path = Path()) -> list[Check]:
    """Looks at everything once. Takes some seconds: torch, and torchvision where there is one, are really imported.

    Args:
        cache: Folder for decoded images; None: as in `nearfar.load`.
        out: Folder that runs are written to.

    Example:
        >>> from nearfar import doctor
        >>> print(doctor.as_text(doctor.checks()))  # doctest: +SKIP
    """
    torch = imports("torch")
    return [
        Check("python", True, f"{platform.python_version()} on {platform.platform(terse=True)}"),
        *packages(),
        torch,
        torchvision(),
        *(with_torch(cache) if torch.ok else []),
        disk("disk, runs", out),
        shared_memory(),
        open_files(),
        *(extra(name, package) for name, package in EXTRAS.items()),
    ]


def with_torch(cache: Path | None) -> list[Check]:
    """What can only be looked at where torch works, because these parts of nearfar import it."""
    from .data.scan import cache_folder

    folder = cache_folder(cache)
    return [device(), threads(), numba_cache(), writable(folder), disk("disk, cache", folder)]


def as_text(found: list[Check]) -> str:
    """One line a check, and under it what to type where something is wrong."""
    lines = []
    for check in found:
        lines.append(f"{'ok  ' if check.ok else 'MEND'}  {check.name:15}  {check.found}")
        if check.mend:
            lines.append(f"{'':6}{'':15}  -> {check.mend}")
    return "\n".join(lines)


def version(package: str) -> str | None:
    """Installed version, without importing the package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(text: str) -> tuple[int, ...]:
    """The release part of a version: `2.13.0+cpu` -> `(2, 13, 0)`."""
    release = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in release.group().split(".")) if release else ()


def packages() -> list[Check]:
    """What nearfar asks for, as its own metadata says, against what is installed."""
    if version("nearfar") is None:
        return [Check("packages", True, "nearfar runs from its source tree: the versions it needs are not looked at")]
    wrong, seen = [], 0
    for line in importlib.metadata.requires("nearfar") or []:
        asked = re.match(r"([\w.-]+)\s*([^;]*)(;.*extra)?", line)
        if asked is None or asked[3]:
            continue
        floor = re.search(r">=\s*([\d.]+)", asked[2])
        have, seen = version(asked[1]), seen + 1
        if have is None or (floor is not None and numbers(have) < numbers(floor[1])):
            wrong.append(Check(asked[1], False, have or "not installed", f'pip install "{asked[1]}{asked[2].strip()}"'))
    return wrong or [Check("packages", True, f"all {seen} that nearfar needs")]


def imports(package: str) -> Check:
    """Imports a package in a process of its own, so that a broken one breaks nothing here."""
    have = version(package)
    if have is None:
        return Check(package, False, "not installed", f"pip install {package}")
    tried = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return Check(package, True, have)
    told = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
    return Check(package, False, f"{have} can't be imported: {told}", f"pip install --force-reinstall {package}")


def torchvision() -> Check:
    """nearfar does without torchvision, but one built for another torch breaks timm and much else at import."""
    have = version("torchvision")
    if have is None:
        return Check("torchvision", True, "not installed, not needed")
    tried = imports("torchvision")
    if tried.ok:
        return Check("torchvision", True, f"{have}, fits torch {version('torch')}")
    return Check("torchvision", False, f"{tried.found} (torch is {version('torch')})", mend_torchvision())


def mend_torchvision() -> str:
    """The build that fits: torch 2.N.P and torchvision 0.(N + 15).P, both from the same index."""
    have = version("torch") or ""
    kind = have.partition("+")[2]
    index = f" --index-url https://download.pytorch.org/whl/{kind}" if kind else ""
    _, minor, patch = (*numbers(have), 0, 0)[:3]
    fitting = f"pip install --force-reinstall --no-deps torchvision==0.{minor + 15}.{patch}{index}"
    return f"{fitting}   or, if nothing needs it: pip uninstall torchvision"


def device() -> Check:
    """Where a run would happen, and in which precision."""
    import torch

    from .device import choose

    chosen = choose()
    name = torch.cuda.get_device_name(chosen.device) if chosen.device.type == "cuda" else platform.machine()
    slow = (
        ""
        if chosen.dtype == torch.bfloat16 or chosen.device.type != "cpu"
        else ", which has no fast bf16 (AMX, AVX512-BF16)"
    )
    return Check("device", True, f"{chosen} ({name}{slow})")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> Check:
    """More threads than cores make every step slower."""
    import torch

    have, used = cores(), torch.get_num_threads()
    return Check(
        "threads", used <= have, f"{used} on {have} cores", f"export OMP_NUM_THREADS={have}" if used > have else ""
    )


def numba_cache() -> Check:
    """Kernels are compiled once and kept beside the package, or in numba's own folder where that is read-only."""
    import numba

    try:
        kept = numba.njit(cache=True)(_kernel).stats.cache_path
    except RuntimeError as error:
        return Check("kernel cache", False, str(error), "export NUMBA_CACHE_DIR=a folder that you can write to")
    return Check("kernel cache", True, f"{kept}, numba {numba.__version__}")


def _kernel(x: float) -> float:
    return x


def writable(folder: Path) -> Check:
    """Whether the cache can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Check("cache", True, str(folder))
    except OSError as error:
        return Check("cache", False, str(error), "export NEARFAR_CACHE=a folder that you can write to")


def disk(name: str, folder: Path) -> Check:
    """Room on the disk that a folder is on, or will be."""
    folder = folder.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    mend = "" if free >= FREE_DISK else "make room, or take another folder (--out, NEARFAR_CACHE)"
    return Check(name, not mend, f"{free / 1e9:.1f} GB free at {there}", mend)


def shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Memory that processes share; containers often have next to none."""
    if not folder.is_dir():
        return Check("shared memory", True, "no limit of its own on this system")
    free = shutil.disk_usage(folder).free
    mend = "" if free >= FREE_SHARED else "docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm"
    return Check("shared memory", not mend, f"{free / (1 << 20):,.0f} MiB free at {folder}", mend)


def open_files() -> Check:
    """Files that a process may have open at once."""
    if sys.platform == "win32":
        return Check("open files", True, "no limit of its own on this system")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= OPEN_FILES
    return Check(
        "open files", enough, f"{soft:,} at once" if soft >= 0 else "no limit", "" if enough else "ulimit -n 4096"
    )


def extra(name: str, package: str) -> Check:
    """Whether an optional part is there; nothing is wrong where it is not."""
    have = version(package)
    offer = "" if have else f'pip install "nearfar[{name}]"'
    return Check(f"extra {name}", True, f"{package} {have}" if have else "not installed", offer)
