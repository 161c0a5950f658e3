"""NT-Xent forward and backward, embeddings of 128: milliseconds a step, and the memory that it takes."""

# pyright: reportMissingImports=false

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.speed.fresh import fresh, growth
from benchmarks.speed.harness import OURS, Row, Settings, Turn, there
from nearfar import extract, similarity
from nearfar.losses import infonce
from nearfar.method import Batch

WIDTH, TEMPERATURE = 128, 0.5
SIZES = (256, 1024, 4096, 8192, 16384)
"""Rows in all: twice the images."""
MEMORY_SIZES = (4096, 8192, 16384, 32768)
TARGETS = {256: {"plain torch": 1.0}, 4096: {"lightly": 6.0}, 8192: {"lightly": 10.0}, 16384: {"lightly": 10.0}}
MOST_MEMORY = {16384: 64.0, 32768: 150.0}
LARGEST = {"pytorch-metric-learning": 256, "lightly": 16384, "plain torch": 16384}
"""Rows above which a peer is left out: its time or its memory would be out of all proportion (N^3, N^2)."""
LOSS_DIFFERENCE, GRADIENT_DIFFERENCE = 1e-5, 1e-4
PROTOCOL = (
    "NT-Xent of two views, N rows of 128 float32 in all, temperature 0.5: value and gradient. Memory: growth of the "
    "resident set at its largest over what it was before the step, in a fresh process a point that has taken a step "
    "of 256 rows before. plain torch: normalise, one N x N product, diagonal -inf, cross-entropy. Checked: relative "
    "differences of value and gradient to nearfar's."
)
Loss = Callable[[Tensor, Tensor], Tensor]


def rows(settings: Settings) -> Iterator[Row]:
    """Time a size, then memory a size."""
    for count in (64, 256) if settings.smoke else SIZES:
        yield time_row(count, settings)
    for count in (256,) if settings.smoke else MEMORY_SIZES:
        if settings.threads == 1:
            yield memory_row(count)


def time_row(count: int, settings: Settings) -> Row:
    """Milliseconds of value and gradient."""
    steps = {name: partial(step, make(), *views(count)) for name, make in contenders(count).items()}
    return Row(
        name=f"NT-Xent, N = {count:,}",
        unit="ms",
        costs={name: Turn(work, units=1, clock=settings.clock, scale=1e3) for name, work in steps.items()},
        measured=settings.measured,
        agreement=lambda: agreement(count),
        targets=TARGETS.get(count, {}),
        work={"flops": 4 * count**2 * WIDTH, "bytes": 2 * 4 * count * WIDTH},
    )


def memory_row(count: int) -> Row:
    """MiB of value and gradient."""
    return Row(
        name=f"NT-Xent, N = {count:,}: memory",
        unit="MiB",
        costs={name: partial(fresh, 1, memory, name, count) for name in contenders(count)},
        measured="largest resident set, a fresh process a point",
        most=MOST_MEMORY.get(count),
        work={"bytes": 2 * 4 * count * WIDTH},
        warm_up=False,
    )


def memory(name: str, count: int) -> float:
    """Runs in a process of its own."""
    work = partial(step, contenders(count)[name]())
    work(*views(256))
    embeddings = views(count)
    return growth(lambda: work(*embeddings))


def views(count: int) -> tuple[Tensor, Tensor]:
    """Two views' embeddings, `[count / 2, WIDTH]`, that resemble each other."""
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(count // 2, WIDTH, generator=draw)
    second = first + torch.randn(count // 2, WIDTH, generator=draw)
    return first.requires_grad_(), second.requires_grad_()


def step(loss: Loss, first: Tensor, second: Tensor) -> Tensor:
    """Value, with its gradient in the embeddings."""
    first.grad = second.grad = None
    value = loss(first, second)
    value.backward()
    return value.detach()


def contenders(count: int) -> dict[str, Callable[[], Loss]]:
    """Those that are installed and bear so many rows."""
    made = {OURS: nearfar, "plain torch": lambda: plain}
    if there("lightly"):
        made["lightly"] = lightly
    if there("pytorch_metric_learning"):
        made["pytorch-metric-learning"] = metric_learning
    return {name: make for name, make in made.items() if count <= LARGEST.get(name, count)}


def nearfar() -> Loss:
    """As `methods.simclr` has it."""

    def loss(first: Tensor, second: Tensor) -> Tensor:
        batch = Batch(inputs=first, sizes=first, ids=torch.arange(len(first), device=first.device))
        (pairs,) = extract.every_view([first, second], [first, second], batch, None)
        return infonce(pairs, similarity.cosine, temperature=TEMPERATURE)

    return loss


def plain(first: Tensor, second: Tensor) -> Tensor:
    """What one writes oneself."""
    unit = F.normalize(torch.cat([first, second]), dim=1)
    scores = unit @ unit.T / TEMPERATURE
    scores.fill_diagonal_(-torch.inf)
    partners = torch.arange(len(unit), device=unit.device).roll(len(first))
    return F.cross_entropy(scores, partners)


def lightly() -> Loss:
    """Its loss without a memory bank."""
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=TEMPERATURE)


def metric_learning() -> Loss:
    """pytorch-metric-learning's, wrapped for two views; the index tensors of all triplets are of N^3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    return SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))


def agreement(count: int) -> dict[str, tuple[float, float]]:
    """Relative differences to nearfar's value and gradient."""
    found, ours = {}, None
    for name, make in contenders(count).items():
        first, second = views(count)
        value = step(make(), first, second)
        gradient = torch.cat([v.grad for v in (first, second) if v.grad is not None])
        if ours is None:
            ours = value, gradient
            continue
        found[f"value, {name}"] = (float((value / ours[0] - 1).abs()), LOSS_DIFFERENCE)
        found[f"gradient, {name}"] = (float((gradient - ours[1]).norm() / ours[1].norm()), GRADIENT_DIFFERENCE)
    return found
