"""What all tests share: one thread, fixed seeds, and where real data is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests run side by side; more threads than cores would slow all of them, and sums would depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """A test that draws from torch draws the same each time, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images and lists of episodes go where only the tests of one file look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARFAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets: NEARFAR_DATA, or `shared/data` beside the repository."""
    folder = Path(os.environ.get("NEARFAR_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set NEARFAR_DATA")
    return folder
