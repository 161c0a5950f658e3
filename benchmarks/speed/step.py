"""A SimCLR step end to end, from images in memory to updated weights: milliseconds an image."""

# pyright: reportMissingImports=false

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import RandomSampler
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.harness import OURS, Row, Settings, Turn, there
from benchmarks.speed.loader import dataset_of
from benchmarks.speed.losses import Loss
from benchmarks.speed.photographs import photographs, pixels
from benchmarks.speed.views import Each
from nearfar import Contrast, encoders, methods, optim
from nearfar.data import Dataset
from nearfar.device import Device, choose
from nearfar.encoders import pooled
from nearfar.engine import Loop
from nearfar.plan import Plan

REST, LOOK = 0.5, 0.1
"""Seconds without work after which loader workers are taken to have filled their queue, and between two looks."""
SAME = 1e-4
PROTOCOL = (
    "One training step: images in memory, two views, encoder (nearfar's for all, the same weights), head, NT-Xent, "
    "gradient, SGD with momentum. lightly: its transform, head and loss in the loop of its examples, a DataLoader "
    "with a worker a thread, fp32; bf16: with autocast and channels_last besides. nearfar: `Loop` as `nearfar train` "
    "has it. Everything shares as many cores as there are threads. Loader workers begin a turn with a full queue and "
    "fill it again after its end, before the next turn, off the clock. Checked: the encoders' features are the same."
)


@dataclass(frozen=True)
class Case:
    """An encoder on images; `asked`: how many times as fast as lightly's own loop."""

    encoder: str
    side: int
    size: int
    batch: int
    asked: float

    @property
    def name(self) -> str:
        """As in the table."""
        return f"SimCLR step, {self.encoder}, {self.size} px, B = {self.batch}"

    def net(self) -> encoders.Net:
        """The encoder with the same weights each time."""
        torch.manual_seed(0)
        return encoders.build(self.encoder, channels=3, size=self.size)

    def flops(self) -> float:
        """Of a training step, an image: two views, and the backward pass taken for twice the forward pass."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.net().eval()(torch.zeros(1, 3, self.size, self.size))
        return 3 * 2 * counter.get_total_flops()


CASES = (Case("resnet18", 32, 32, 256, 3.0), Case("resnet50", 256, 224, 32, 2.0))
SMOKE = (Case("small", 32, 32, 8, 0.0),)


def rows(settings: Settings) -> Iterator[Row]:
    """A row an encoder."""
    for case in SMOKE if settings.smoke else CASES:
        pictures = photographs(4 * case.batch, case.side, case.side)
        device = choose("cpu", "auto")
        steps: dict[str, Callable[[], object]] = {
            OURS: looped(model_of(case, device), dataset_of(pixels(pictures[: case.batch])), device, batch=case.batch)
        }
        if there("lightly"):
            steps |= {f"lightly, {p}": lightly(case, pictures, p == "bf16", settings.threads) for p in ("fp32", "bf16")}
        yield Row(
            name=case.name,
            unit="ms an image",
            costs={
                name: settled(Turn(step, units=case.batch, clock=time.perf_counter, scale=1e3))
                for name, step in steps.items()
            },
            measured=f"wall clock; nearfar: {device}",
            agreement=lambda case=case: agreement(case),
            targets={"lightly, fp32": case.asked},
            work={"flops": case.flops()},
        )


def looped(model: Contrast, dataset: Dataset, device: Device, *, batch: int, **settings: Any) -> Loop:
    """nearfar's loop over a data set, once or more; each call of it does all of its steps.

    Args:
        model: What is trained.
        dataset: On these images.
        device: Where.
        batch: Images a step.
        settings: `samples` and `epochs` of the plan, `probe` of the loop.
    """
    probe = settings.pop("probe", None)
    plan = Plan(**{"samples": np.arange(len(dataset)), "epochs": 1} | settings, batch=batch, peak=0.06 * batch / 128)
    optimizer = optim.build(model, name="sgd", lr=plan.peak, weight_decay=5e-4)
    return Loop(model, optimizer, dataset, plan, device, probe=probe)


def model_of(case: Case, device: Device) -> Contrast:
    """SimCLR as `nearfar train` builds it."""
    net = case.net()
    model = Contrast(methods.simclr(encoder=net, size=case.size, hidden=(net.width,))).to(device.device)
    return nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)


def lightly(
    case: Case, pictures: list[Image.Image], bf16: bool, workers: int, device: str = "cpu"
) -> Callable[[], Tensor]:
    """lightly's parts in the loop of its examples; `bf16` adds what a user can add by hand."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform

    from benchmarks.peers.lightly_simclr import SimCLR

    net, small = case.net(), {"cj_strength": 0.5, "gaussian_blur": 0.0} if case.size < 64 else {}
    images = Each(pictures, SimCLRTransform(input_size=case.size, **small))
    criterion = NTXentLoss(temperature=0.5 if case.size < 64 else 0.1)
    return peer(case, images, SimCLR(net, hidden=net.width), criterion, bf16, workers, device)


def peer(
    case: Case, images: Each, model: nn.Module, criterion: Loss, bf16: bool, workers: int, device: str
) -> Callable[[], Tensor]:
    """A step of the usual loop: workers make views, each view passes through the network alone."""
    layout = torch.channels_last if bf16 else torch.contiguous_format
    model = nn.utils.convert_conv2d_weight_memory_format(model.to(device), layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    endless = RandomSampler(images, replacement=True, num_samples=10**9)
    loader = iter(images.loader(case.batch, workers, sampler=endless, pin_memory=device != "cpu"))

    def step() -> Tensor:
        views = [view.to(device, memory_format=layout, non_blocking=True) for view in next(loader)]
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = criterion(*map(model, views))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def agreement(case: Case) -> dict[str, tuple[float, float]]:
    """Largest difference of the features that the encoder gives before training, over the largest of them."""
    if not there("lightly"):
        return {}
    from benchmarks.peers.lightly_simclr import SimCLR

    view = torch.randn(2, 3, case.size, case.size, generator=torch.Generator().manual_seed(0))
    method = methods.simclr(encoder=case.net(), size=case.size)
    with torch.no_grad():
        ours = pooled(Contrast(method).eval().encoder(view))
        theirs = pooled(SimCLR(case.net(), hidden=128).eval().backbone(view))
    return {"features, lightly": (float((ours - theirs).abs().max() / ours.abs().max()), SAME)}


def settled(turn: Callable[[], float]) -> Callable[[], float]:
    """A turn after which the loader workers come to rest."""

    def take() -> float:
        cost = turn()
        spent, since = worked(), time.perf_counter()
        while time.perf_counter() - since < REST:
            time.sleep(LOOK)
            if (now := worked()) != spent:
                spent, since = now, time.perf_counter()
        return cost

    return take


def worked() -> int:
    """Ticks of processor time of all processes that this one started; 0 where the system does not tell."""
    files = [Path(f"/proc/{child.pid}/stat") for child in multiprocessing.active_children()]
    fields = [file.read_text().rpartition(")")[2].split() for file in files if file.exists()]
    return sum(int(user) + int(system) for user, system in (line[11:13] for line in fields))
