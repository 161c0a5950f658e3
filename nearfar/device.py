"""Where the arithmetic happens, and in which precision."""

# torch's stubs do not export PrefixStore
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist

from .errors import DeviceError


@dataclass(frozen=True)
class Device:
    """A device and the precision of convolutions on it; normalisation, similarity and loss are fp32 in any case."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context in which the encoder runs."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def __str__(self) -> str:
        return f"{self.device} in {str(self.dtype).removeprefix('torch.')}"


def choose(device: str = "auto", precision: str = "auto") -> Device:
    """The device asked for; `auto` takes cuda, mps, xpu, cpu in this order. Nothing falls back in silence.

    Args:
        device: auto, cpu, cuda, cuda:1, mps, xpu.
        precision: "auto" is bf16 where the device multiplies it natively (CUDA 8.0 on, CPUs with AMX or AVX512-BF16),
            else fp32.

    Raises:
        DeviceError: The device asked for is not there.
    """
    there = [name for name in ("cuda", "mps", "xpu") if getattr(torch, name).is_available()] + ["cpu"]
    kind = there[0] if device == "auto" else device.split(":")[0]
    if kind not in there:
        raise DeviceError(
            f"device {device!r} is not there", where="device", mend=f"--device {there[0]}, or --device auto"
        )
    index = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = (
        torch.device(kind, index)
        if kind == "cuda" and device in ("auto", "cuda")
        else torch.device(kind if device == "auto" else device)
    )
    if chosen.type == "cuda":
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise DeviceError(f"there are {torch.cuda.device_count()} GPUs", where=str(chosen), mend="--device cuda:0")
        torch.cuda.set_device(chosen)
    bf16 = precision == "bf16" or (precision == "auto" and _multiplies_bf16(chosen))
    return Device(chosen, torch.bfloat16 if bf16 else torch.float32)


def has_kernels(device: torch.device) -> bool:
    """Whether our kernels run there: an NVIDIA GPU from compute capability 8.0 on, and what they are built with."""
    return device.type == "cuda" and _builds_kernels() and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _builds_kernels() -> bool:
    """Whether triton is here, and what it builds its launchers with: a C compiler and Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")  # as triton looks for it
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return torch.version.cuda is not None and find_spec("triton") is not None and bool(compiler) and headers


def check_compiler(device: torch.device) -> None:
    """Raises a `DeviceError` where `torch.compile` would fail in the first step for want of a compiler."""
    if device.type == "cuda" and not _builds_kernels():
        raise DeviceError(
            "torch.compile needs triton, a C compiler and Python's headers, which are not all here",
            where=f"--compile on {device}",
            mend="install gcc and python3-dev, or leave --compile out",
        )
    compilers = (os.environ.get("CXX", "g++"), *(["clang++"] if sys.platform == "darwin" else []))
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise DeviceError(
            "torch.compile needs a C++ compiler, which is not here",
            where=f"--compile on {device}",
            mend="install g++, or leave --compile out",
        )


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # without AMX, on one core of a Zen: ResNet-18 at 32 px 2.0 times as fast as in fp32, ResNet-50 at 224 px 2.1 times
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


@contextlib.contextmanager
def processes(device: Device):
    """Joins the other processes where torchrun started this one; otherwise does nothing."""
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    store, number, count = next(iter(dist.rendezvous("env://")))
    # A prefix of its own for each attempt: after a restart torchrun's store still holds the addresses of processes that
    # are gone, and gloo of torch 2.13 then fails to connect.
    store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if device.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()
