"""A method of one's own: the files that are begun with, the check that a test calls, and runs of a method in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import nearfar as nf
from nearfar import extract, losses, methods
from nearfar.contract import Tiny, check_method, stripes
from nearfar.errors import UsageError
from nearfar.method import Batch, Contrast, Extract, Method
from nearfar.method_file import fingerprint, method_file, register
from nearfar.methods import LEARNS_FROM, METHODS, USUAL
from nearfar.tasks import new_method

TRAIN = {"encoder": "small", "batch": 16, "epochs": 1, "threads": 1, "precision": "fp32", "hidden": 32, "say": print}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is gone after it."""
    kept = [(known, dict(known)) for known in (METHODS, LEARNS_FROM, USUAL)]
    yield
    for known, before in kept:
        known.clear()
        known.update(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(np.random.default_rng(0).integers(256, size=(24, 12, 12, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def write(folder: Path, text: str, *, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# What is written -----------------------------------------------------------------------------------------------------


def test_the_written_method_is_simclr_with_one_hidden_layer(tmp_path: Path) -> None:
    said: list[str] = []
    path = new_method("mine", out=tmp_path / "new", say=said.append)
    assert {one.name for one in path.parent.iterdir()} == {"mine.py", "test_mine.py"}
    assert f"nearfar train PHOTOS --method {path}" in said[0]
    mine = METHODS[register(str(path))]
    assert path.read_text().count("\n") < 90 and all(len(line) <= 120 for line in path.read_text().splitlines())
    batch = stripes(16).batch(np.arange(16), seed=1, epoch=0)
    torch.manual_seed(0)
    one = Contrast(mine(encoder="small", size=16, hidden=64, width=16, temperature=0.5))
    torch.manual_seed(0)
    other = methods.simclr(encoder="small", size=16, hidden=(64,), width=16, strength=1.0)
    head = extract.mlp(256, 64, 16, norm=True)
    two = Contrast(replace(other, extract=replace(other.extract, head=head)))
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(batch), two(batch))


@pytest.mark.slow
def test_the_written_test_passes_in_the_users_folder(tmp_path: Path) -> None:
    new_method("my_own2", out=tmp_path, say=lambda told: None)
    done = pytest_in(tmp_path)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout
    path = tmp_path / "my_own2.py"
    path.write_text(path.read_text().replace("extract.every_view)", "extract.every_view, views=(0,))"))
    done = pytest_in(tmp_path)
    assert "2 failed, 1 passed" in done.stdout and "gradient: none reaches" in done.stdout, done.stdout


def pytest_in(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--doctest-modules", "."]
    path = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **path}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("name", "what"),
    [("3d", "name of a function"), ("a-b", "name of a function"), ("class", "name of a function"),
     ("../mine", "name of a function"), ("simclr", "is a method of nearfar"), ("random", "finds first")],
)  # fmt: skip
def test_names_that_cannot_be_given(name: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        new_method(name, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path, "theirs", name="test_mine.py")
    with pytest.raises(UsageError, match=r"test_mine\.py"):
        new_method("mine", out=tmp_path)
    assert (tmp_path / "test_mine.py").read_text() == "theirs" and not (tmp_path / "mine.py").exists()


# What the check finds ------------------------------------------------------------------------------------------------


def small(**changes: object) -> Method:
    return replace(methods.simclr(encoder=Tiny(), size=16, hidden=(32,), width=16), **changes)


class Idle(extract.Head):
    """A head with a weight that is not used."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(32, 16))
        self.idle = nn.Parameter(torch.zeros(3))


class Counting(nn.Module):
    """Counts its steps in an attribute, which no checkpoint has, and changes the comparison with them."""

    steps = 0

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: object) -> list:
        self.steps += 1
        return [replace(pairs, weight=1.0 + self.steps) for pairs in extract.every_view(online, slow, batch, None)]


def unused_weight() -> Method:
    return small(extract=Extract(head=Idle(), pair=extract.every_view))


def forgetful() -> Method:
    return small(extract=Extract(head=extract.linear(32, 16), pair=Counting()))


def in_batches(*, encoder: nn.Module) -> Method:
    return small(encoder=encoder)


def noise() -> Method:
    """Two views that have nothing in common."""
    return small(views=lambda batch: [torch.randn(len(batch.ids), 3, 16, 16) for _ in range(2)])


def no_return() -> None:
    small()


@pytest.mark.parametrize(
    ("function", "settings", "found"),
    [(unused_weight, {}, r"gradient: none reaches head\.idle"), (forgetful, {}, r"resume: \S+ ends otherwise"),
     (in_batches, {"encoder": Tiny(batch_norm=True)}, "chunks: loss or gradient change by up to"),
     (noise, {}, "learning: after 1 epochs"), (no_return, {}, "gives NoneType, not a Method")],
)  # fmt: skip
def test_the_check_finds_what_is_wrong(function, settings: dict, found: str) -> None:
    with pytest.raises(AssertionError, match=found) as error:
        check_method(function, epochs=1, **settings)
    kinds = {"gradient", "resume", "chunks"} - {found.split(":")[0]}
    assert not [kind for kind in kinds if f"{kind}:" in str(error.value)], str(error.value)


def test_the_check_of_a_method_without_negatives() -> None:
    check_method(methods.simsiam, coloured=False, epochs=10, layers=2, width=64, bottleneck=32)


def test_the_check_draws_the_episodes_of_an_episodic_method() -> None:
    check_method(methods.protonet, ways=4, shots=1, queries=1, tasks=8)


# Runs of a method in a file ------------------------------------------------------------------------------------------


def test_the_method_of_a_file_is_under_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "USUAL = {'optimizer': 'adamw'}\nLEARNS_FROM = ('sound',)\ndef mine(): ...\ndef two(): ...\n")
    monkeypatch.chdir(tmp_path)
    assert register("mine.py") == f"{tmp_path}/mine.py:mine" == register("./mine.py:mine")
    assert register("mine.py:two") == f"{tmp_path}/mine.py:two"
    assert METHODS[f"{tmp_path}/mine.py:two"].__name__ == "two"
    assert USUAL[f"{tmp_path}/mine.py:mine"] == {"optimizer": "adamw"}
    assert LEARNS_FROM[f"{tmp_path}/mine.py:mine"] == ("sound",)
    assert register("simclr") == "simclr" and register("unheard-of") == "unheard-of"
    assert method_file("simclr") is None and fingerprint("simclr") is None


@pytest.mark.parametrize(
    ("text", "what"),
    [("def mein(): ...\n", r"no function mine; did you mean mein\? .*mine\.py:mein"),
     ("\n1 / 0\n", r"ZeroDivisionError: division by zero .*mine\.py:2"), ("a = (\n", r"SyntaxError.*mine\.py:1")],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=what):
        register(str(path))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not there .*mine\.py .*nearfar\.METHODS\['.*mine\.py:mine'\]"):
        register(str(tmp_path / "mine.py"))


def test_a_run_finds_its_method_again_and_goes_on_with_no_other(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_method("mine", out=tmp_path, say=lambda told: None)
    monkeypatch.chdir(tmp_path)
    run = nf.train(photos, method="mine.py", out="run", **TRAIN).resolve()
    with pytest.raises(UsageError, match="did you mean temperature"):
        nf.train(photos, method="mine.py", out="run", temprature=1, **TRAIN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    METHODS.pop(f"{path.resolve()}:mine")
    assert nf.load_encoder(run).net.width == 256
    text = path.read_text()
    path.write_text(text + "# changed\n")
    with pytest.raises(UsageError, match="method_file"):
        nf.train(photos, method=str(path), out=run, **TRAIN)
    path.unlink()
    mine = METHODS.pop(f"{path.resolve()}:mine")
    with pytest.raises(UsageError, match="the method's file is not there"):
        nf.load_encoder(run)
    METHODS[f"{path.resolve()}:mine"] = mine
    assert nf.load_encoder(run).net.width == 256


def test_the_loss_of_a_file_may_be_its_own(tmp_path: Path) -> None:
    """Classes and dataclasses in the file work: it is a module."""
    path = write(
        tmp_path,
        "from __future__ import annotations\nfrom dataclasses import dataclass, replace\nfrom nearfar import losses\n"
        "from nearfar.methods import simclr\n@dataclass\nclass Own:\n    t: float\n    def __call__(self, pairs, s):\n"
        "        return 2 * losses.infonce(pairs, s, temperature=self.t)\n"
        "def mine(*, t: float = 0.5):\n    return replace(simclr(encoder='small', size=16), loss=Own(t))\n",
    )
    method = METHODS[register(str(path))](t=0.5)
    batch = stripes(8).batch(np.arange(8), seed=1, epoch=0)
    plain = Contrast(replace(method, loss=partial(losses.infonce, temperature=0.5)))(batch)
    torch.testing.assert_close(Contrast(method)(batch), 2 * plain)
