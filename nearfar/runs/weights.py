"""Weights as safetensors: nothing here ever unpickles, and a file that does not fit is refused by the tensor's name."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import IntegrityError, UsageError
from .atomic import disk_errors, replace

PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_CONVERT = (
    'convert it where you trust it: python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('IN.pth', weights_only=True), 'OUT.safetensors')\""
)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes named tensors to one safetensors file, whole or not at all, and waits for the disk.

    Any device, layout and dtype of the format, also without dimensions; tensors that share memory are written twice.
    Read back they are bit for bit the same.
    """
    replace(path, lambda part: _write(part, tensors))


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file(_plain(tensors), path)
    except SafetensorError as error:  # it wraps the system's error and keeps only the text
        number = re.search(r"\(os error (\d+)\)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error), str(path)) from error
    os.chmod(path, 0o666 & ~_umask())


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two in the same memory: what the format can hold. Copies only where it must."""
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        memory = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return plain


def _umask() -> int:
    """The writer makes files that only their owner may read; the folder's other files follow the umask."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file, on the CPU, mapped into memory and read when used.

    Raises:
        UsageError: There is no such file.
        IntegrityError: It is a pickle, or damaged.
    """
    path = Path(path)
    refuse_pickles(path)
    if not path.is_file():
        raise UsageError("no such weights file", where=path, mend="give the path of a .safetensors file")
    try:
        with disk_errors(path):
            return load_file(path, device="cpu")
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        what = f"damaged or not safetensors: {error}"
        raise IntegrityError(what, where=path, mend="fetch or write the file again") from error


def match_tensors(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], *, where: object = "") -> None:
    """Refuses weights that are not those of this network: other names, shapes or dtypes, NaN or infinity.

    Args:
        expected: What the network has, such as `module.state_dict()`. Where it is not finite itself, nor need `got` be.
        got: What was read.
        where: File, for the message.

    Raises:
        IntegrityError: One line for each tensor that does not fit.

    Example:
        >>> match_tensors({"w": torch.zeros(2)}, {"w": torch.ones(2)})
    """
    lines = [f"{name}: missing" for name in expected if name not in got]
    lines += [f"{name}: not part of this network" for name in got if name not in expected]
    for name in expected:
        if name in got:
            lines += _mismatch(name, expected[name], got[name])
    if lines:
        shown = lines[:10] + ([f"and {len(lines) - 10} more"] if len(lines) > 10 else [])
        what = "\n  ".join(
            [f"{len(lines)} tensors do not fit:" if len(lines) > 1 else "a tensor does not fit:", *shown]
        )
        raise IntegrityError(what, where=where, mend="use the settings (encoder, size) that the weights were made with")


def _mismatch(name: str, expected: Tensor, got: Tensor) -> list[str]:
    if got.shape != expected.shape:
        return [f"{name}: shape {list(got.shape)}, expected {list(expected.shape)}"]
    if got.dtype != expected.dtype:
        return [f"{name}: {got.dtype}, expected {expected.dtype}"]
    if not bool(torch.isfinite(got).all()) and bool(torch.isfinite(expected).all()):
        return [f"{name}: holds NaN or infinity"]
    return []


def refuse_pickles(path: str | Path) -> None:
    """Refuses a file that an unpickler would have to read, by name and by content, without reading it so.

    Raises:
        IntegrityError: `.pt`, `.pth`, `.pkl`, `.ckpt`, `.joblib`, arrays of Python objects, archives of `torch.save`,
            folders of `torch.distributed.checkpoint`.
    """
    path = Path(path)
    reason = _pickled(path)
    if reason:
        raise IntegrityError(f"{reason}; reading it could run any code", where=path, mend=_CONVERT)


def _pickled(path: Path) -> str | None:
    if path.is_dir():
        return "a torch.distributed checkpoint has pickled metadata" if (path / ".metadata").exists() else None
    if path.suffix.lower() in PICKLED:
        return f"{path.suffix} files are pickles"
    if path.suffix.lower() == ".safetensors" or not path.is_file():
        return None  # its reader runs nothing, and its first bytes, a length, may look like a pickle's
    with disk_errors(path), open(path, "rb") as file:
        start = file.read(6)
        file.seek(0)
        if start.startswith(b"PK\x03\x04"):
            return _pickled_archive(file) if path.suffix.lower() == ".npz" else "an archive, as torch.save writes it"
        if start == b"\x93NUMPY":
            return _pickled_array(file, path.name)
    if path.suffix.lower() in (".npy", ".npz"):
        return f"named {path.suffix}, but not of that kind"
    return "a pickle" if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") else None


def _pickled_archive(file: IO[bytes]) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    reason = _pickled_array(member, name)
                if reason:
                    return reason
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        return f"a damaged archive ({error})"
    return None


def _pickled_array(file: IO[bytes], name: str) -> str | None:
    """Looks at the header alone. Version 3 differs from 2 only in the encoding of field names."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dtype = read(file)[2]
    except (ValueError, EOFError) as error:
        return f"{name} is no plain array ({error})"
    return f"{name} holds Python objects, which are pickled" if dtype.hasobject else None
