"""Memory for views: used again when nobody holds it, and never before."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from nearfar.views.buffers import KEPT, Buffers
from nearfar.views.draw import plain
from nearfar.views.render import Rendering, render


def through_autograd(tensor: Tensor) -> Tensor:
    weight = torch.ones(len(tensor), requires_grad=True)
    return (weight * tensor).sum()  # keeps the tensor for the gradient


HOLDERS: dict[str, Callable[[Tensor], object]] = {
    "the tensor": lambda tensor: tensor,
    "a view of it": lambda tensor: tensor.view(2, 3, 4)[1:, ::2],
    "numpy": lambda tensor: tensor.numpy()[3:],
    "its storage": lambda tensor: tensor.untyped_storage(),
    "what autograd keeps": through_autograd,
    "the other layout": lambda tensor: tensor.view(1, 2, 3, 4).permute(0, 3, 1, 2),
    "a module": lambda tensor: torch.nn.Parameter(tensor),
    "DLPack": to_dlpack,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_held_keeps_its_memory(holder):
    buffers = Buffers()
    tensor = buffers.empty(24).fill_(7.0)
    place = tensor.data_ptr()
    held = HOLDERS[holder](tensor)
    del tensor
    others = [buffers.empty(24).fill_(1.0) for _ in range(3)]
    assert place not in [other.data_ptr() for other in others]
    del held, others
    gc.collect()
    assert place in [made.data_ptr() for made in [buffers.empty(24) for _ in range(4)]]


def test_sizes_do_not_mix_and_what_is_not_asked_for_again_is_given_up():
    buffers = Buffers()
    for count in (10, 20, 30):
        assert buffers.empty(count).shape == (count,)
    assert len(buffers._buffers) == 3
    for _ in range(KEPT + 1):
        buffers.empty(30)
    assert [buffer.array.size for buffer in buffers._buffers] == [30]


def test_threads_never_get_the_same_memory():
    buffers = Buffers()

    def work(number: int) -> bool:
        alone = True
        for turn in range(300):
            mine = buffers.empty(64).fill_(number * 1000 + turn)
            other = buffers.empty(64).fill_(-1)
            alone &= bool((mine == number * 1000 + turn).all()) and other.data_ptr() != mine.data_ptr()
        return alone

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(buffers._buffers) <= 16


def test_views_that_are_kept_stay_as_they_were():
    rng = np.random.default_rng(0)
    boxes = np.tile(np.array([0, 0, 12, 12], np.int32), (5, 1))
    batches = [rng.integers(0, 256, (5, 3, 12, 12), dtype=np.uint8) for _ in range(6)]
    made = [render(images, Rendering(plain(boxes), 12))[0] for images in batches]
    before = [views.clone() for views in made]
    for images in batches:
        render(images, Rendering(plain(boxes), 12))[0]
        render(images[::-1], Rendering(plain(boxes), 12), channels_last=True)
    assert all(torch.equal(a, b) for a, b in zip(made, before, strict=True))
    assert render(batches[0][:0], Rendering(plain(boxes[:0]), 12))[0].shape == (0, 3, 12, 12)
