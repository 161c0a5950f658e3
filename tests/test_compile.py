"""`--compile`: the same training, and an error before it where nothing can be compiled."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from test_methods import toy_loop
from toys import toy_method, toy_of

import nearfar as nf
from nearfar import device
from nearfar.contract import _not_resumed
from nearfar.engine import Loop
from nearfar.errors import DeviceError
from nearfar.method import Contrast


@pytest.fixture
def without_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    device._builds_kernels.cache_clear()


def test_without_a_compiler_it_is_refused_before_anything_is_read(without_compilers, tmp_path):
    with pytest.raises(DeviceError, match=r"C\+\+ compiler.*--compile on cpu"):
        nf.train(tmp_path / "nothing", compile=True, device="cpu", out=tmp_path / "run")
    with pytest.raises(DeviceError, match="triton"):
        device.check_compiler(torch.device("cuda"))
    assert not (tmp_path / "run").exists()


def test_a_compiler_that_is_not_looked_for_on_linux_does_not_count(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/clang++" if name == "clang++" else None)
    monkeypatch.setattr(device.sys, "platform", "linux")
    with pytest.raises(DeviceError, match=r"C\+\+ compiler"):
        device.check_compiler(torch.device("cpu"))
    monkeypatch.setattr(device.sys, "platform", "darwin")
    device.check_compiler(torch.device("cpu"))


@pytest.mark.parametrize("name", ["simclr", "moco", "cmc"])
def test_every_network_that_views_go_through_is_compiled(name):
    model = Contrast(toy_method(name))
    taken = []
    for net in model.networks():
        net.register_forward_hook(lambda net, *_: taken.append(net))
    model.embed(toy_loop(model, toy_of(name).data(128), epochs=1).batch(0))
    assert {id(net) for net in taken} == {id(net) for net in model.networks()}
    assert len(model.networks()) == {"simclr": 1, "moco": 2, "cmc": 2}[name]


def compiled_loop(*, compiled: bool) -> Loop:
    """MoCo, so that a slow network is there too."""
    torch.manual_seed(0)
    model = Contrast(toy_method("moco", batch_norm=True))
    for net in model.networks() if compiled else ():
        net.compile()
    return toy_loop(model, toy_of("moco").data(128), epochs=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiled_it_learns_the_same_and_goes_on_bit_for_bit():
    eager, compiled = compiled_loop(compiled=False), compiled_loop(compiled=True)
    losses = [loop.backward((loop.batch(0), None)) for loop in (eager, compiled)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for (name, one), (_, other) in zip(*(loop.model.named_parameters() for loop in (eager, compiled)), strict=True):
        if one.requires_grad:
            np.testing.assert_allclose(one.grad, other.grad, atol=1e-5, err_msg=name)
    assert not list(_not_resumed(partial(compiled_loop, compiled=True)))
