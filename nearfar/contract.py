"""The contract that every method keeps, as a test of your own: `check_method(mine)`, and the toy set that it uses."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import optim
from .data import Dataset
from .device import choose
from .encoders import pooled
from .encoders.norm import BatchNorm
from .engine import Loop
from .episodes import EpisodeSampler
from .errors import HealthError
from .evaluation import features, knn
from .method import Contrast, Method
from .plan import Plan
from .runs import Run
from .views import CentreCrop

SIDE = 16
"""Of a toy image, pixels."""

COLOURS = {"jitter": (0.4, 0.4, 0.4, 0.3), "jitter_p": 0.8, "grey_p": 0.3}
SUITED = {"scale": (0.4, 1.0), "ratio": (3 / 4, 4 / 3), "pad": 0.0, "blur_p": 0.0, "flip": 0.5, **COLOURS}
"""Views that leave a stripe a stripe. What is learned is what they don't change."""

BATCH = 64


def check_method(
    function: Callable[..., Method], *, epochs: int = 20, coloured: bool = True, **settings: object
) -> None:
    """Holds a method of images to what every method of nearfar keeps, on 512 striped images of 16 px, in seconds.

    Learning: after training, the nearest neighbours of more images are of their kind. Gradient: it reaches every
    weight, but those of a teacher. Chunks: with a few images in the encoder at once, loss and gradient are the same.
    Resume: a run that is killed and started again ends with the same weights, bit for bit.

    Args:
        function: Keyword arguments -> `Method`, as those in `nearfar.METHODS`.
        epochs: Of learning.
        coloured: False: white stripes under noise, for methods to which colours would be enough (those without
            negatives, and others that have slow targets).
        settings: Keyword arguments that suit so small a set: narrow heads, short queues. `encoder` in place of a
            network of three layers; one with batch norm sees chunks, and is then no longer the same.

    Raises:
        AssertionError: What does not hold, a line each.

    Example:
        >>> from nearfar import methods
        >>> check_method(methods.simclr, hidden=(32,), width=16, temperature=0.2)
    """

    def loop(*, epochs: int = 1, count: int = 8 * BATCH, batch_norm: bool = False) -> Loop:
        torch.manual_seed(0)
        data = stripes(count, coloured=coloured)
        own = {"size": SIDE, "channels": 3, "classes": 4, "samples": len(data), "encoder": Tiny(batch_norm=batch_norm)}
        taken = inspect.signature(function).parameters
        method = function(**{name: value for name, value in own.items() if name in taken} | settings)
        if not isinstance(method, Method):
            raise AssertionError(f"{function.__name__} gives {type(method).__name__}, not a Method: is `return` there?")
        return toy_loop(method, data, epochs=epochs)

    with torch.random.fork_rng(devices=[]):
        found = [
            *_unreached(loop()),
            *_changed_by_chunks(loop()),
            *_not_resumed(partial(loop, epochs=2, count=3 * BATCH, batch_norm=True)),
            *_not_learned(loop(epochs=epochs, batch_norm=True)),
        ]
    if found:
        raise AssertionError("\n  ".join([f"{function.__name__} does not keep the contract:", *found]))


def toy_loop(method: Method, data: Dataset, *, epochs: int) -> Loop:
    """Training of a method on the toy set, as `train` would do it, with views that suit so small images."""
    changed = getattr(method.views, "changed", None)
    model = Contrast(method if changed is None else replace(method, views=changed(**SUITED)))
    shape, batch, episodes = model.episode, BATCH, None
    if shape is not None and data.labels is not None:
        batch = shape.images * shape.tasks
        episodes = EpisodeSampler(data.labels, ways=shape.ways, shots=shape.shots, queries=shape.queries, seed=3)
    plan = Plan(
        samples=np.arange(len(data)), batch=batch, epochs=epochs, peak=0.003, warmup_epochs=0.5, seed=3,
        checkpoint_minutes=math.inf, episodes=episodes,
    )  # fmt: skip
    optimizer = optim.build(model, name="adamw", lr=0.003, weight_decay=1e-4)
    return Loop(model=model, optimizer=optimizer, dataset=data, plan=plan, device=choose("cpu", "fp32"))


def _unreached(loop: Loop) -> Iterator[str]:
    """Weights that no gradient reaches."""
    loop.model(loop.batch(0)).backward()
    for name, parameter in loop.model.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any()):
            yield f"gradient: none reaches {name}"
        if name.startswith("slow.") and parameter.requires_grad:
            yield f"gradient: {name} of the teacher takes one"


def _changed_by_chunks(loop: Loop) -> Iterator[str]:
    """Loss and gradient in fp64, whole and with five images in the encoder at once."""
    assert isinstance(loop.model, Contrast)
    whole = loop.model.double()
    views = whole.views
    whole.views = lambda batch: [view.double() if view.is_floating_point() else view for view in views(batch)]
    parts = copy.deepcopy(whole)
    parts.chunk = 5
    one, two = (_loss_and_gradient(model, loop) for model in (whole, parts))
    if not torch.allclose(one, two, rtol=1e-8, atol=1e-10):
        yield f"chunks: loss or gradient change by up to {float((one - two).abs().max()):.2g}"


def _loss_and_gradient(model: nn.Module, loop: Loop) -> Tensor:
    torch.manual_seed(0)
    loss = model(loop.batch(0))
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat([loss.detach()[None], *gradients])


class _Killed(Exception):
    """Stands for a kill: nothing more is written."""


def _not_resumed(make: Callable[[], Loop]) -> Iterator[str]:
    """Weights that end otherwise where a run was killed at the end of its first epoch."""
    whole, killed, second = make(), make(), make()
    whole()

    def kill(row: dict[str, float]) -> None:
        if row["step"] == killed.plan.steps_per_epoch:
            raise _Killed

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with Run.open_or_create(path, settings={}, info={}) as run, contextlib.suppress(_Killed):
            replace(killed, run=run, report=kill, plan=replace(killed.plan, checkpoint_minutes=0.0))()
        with Run.open_or_create(path, settings={}, info={}) as run:
            replace(second, run=run)()
    ended = second.model.state_dict()
    for name, expected in whole.model.state_dict().items():
        if not torch.equal(expected, ended[name]):
            yield f"resume: {name} ends otherwise in a run that was killed and started again"


def _not_learned(loop: Loop) -> Iterator[str]:
    """Neighbours by the trained encoder that are no better than by the untrained one."""
    before = _neighbours(loop)
    try:
        loop()
    except HealthError as error:
        yield f"learning: {error.what}"
        return
    after, wanted = _neighbours(loop), before + min(0.15, (1 - before) / 2)
    if not after > wanted:
        yield (
            f"learning: after {loop.plan.epochs} epochs {after:.0%} of the images are named right by their neighbours, "
            f"{before:.0%} before; more than {wanted:.0%} were wanted"
        )


def _neighbours(loop: Loop) -> float:
    """Share of images that their nearest neighbours name right."""
    assert isinstance(loop.model, Contrast)
    encoder = loop.model.encoder
    found = features(lambda view: pooled(encoder(view)), loop.dataset, CentreCrop(SIDE))
    return knn(found, torch.from_numpy(loop.dataset.labels), k=5).value


def stripes(count: int = 192, *, seed: int = 0, coloured: bool = True) -> Dataset:
    """Images of classes 0-3: upright, level, chequers, slanting; colours, phases and noise say nothing of the class.

    Args:
        count: Number of images.
        seed: Another seed, other images.
        coloured: Two colours drawn for each image, a little noise. False: white on black, much noise.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    y, x = np.mgrid[:SIDE, :SIDE]
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        across, down, slant = (np.sin(2 * np.pi * (line / 5 + rng.uniform())) for line in (x, y, (x + y) * 0.7))
        wave = 0.5 + 0.5 * (across, down, across * down, slant)[label]
        one, two = rng.uniform(0, 1, (2, 3, 1, 1)) if coloured else (1.0, 0.0)
        noisy = one * wave + two * (1 - wave) + rng.normal(0, 0.05 if coloured else 0.5, (3, SIDE, SIDE))
        image[:] = (noisy.clip(0, 1) * 255).round()
    return Dataset(
        inputs=images,
        sizes=np.full((count, 2), SIDE),
        ids=np.arange(count),
        names=[f"stripes/{number}.png" for number in range(count)],
        hashes=rng.integers(256, size=(count, 16), dtype=np.uint8),
        labels=labels.astype(np.int64),
        classes=["upright", "level", "chequers", "slanting"],
    )


class Tiny(nn.Module):
    """A net of three layers. Without batch norm chunks and processes can be compared exactly."""

    width = 32

    def __init__(self, channels: int = 3, *, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, 16, 2), (16, 32, 2), (32, 32, 1)):
            norm = BatchNorm(after) if batch_norm else nn.GroupNorm(4, after)
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), norm, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, view: Tensor) -> list[Tensor]:
        return [self.layers(view)]
