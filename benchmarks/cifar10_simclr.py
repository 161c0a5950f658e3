"""nearfar's SimCLR on CIFAR-10 for a fixed number of seconds.

python -m benchmarks.cifar10_simclr --seconds 1200 --threads 1
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from itertools import count

import torch
from torch import nn

from benchmarks.common import SIZE, Contender, Data, compete, sgd
from nearfar import Contrast, methods
from nearfar.device import choose
from nearfar.method import Batch
from nearfar.randomness import permutation


def prepare(settings: Namespace, data: Data, encoder: nn.Module) -> Contender:
    """The method as it stands; a head of the width of lightly's CIFAR-10 benchmark."""
    device = choose("cpu", settings.precision or "auto")
    method = methods.simclr(encoder=encoder, size=SIZE, hidden=(512,), width=128, temperature=0.5)
    model = nn.utils.convert_conv2d_weight_memory_format(Contrast(method), torch.channels_last)
    optimizer = sgd(model, settings)

    def step(batch: Batch, lr: float) -> float:
        optimizer.param_groups[0]["lr"] = lr
        with device.autocast():
            loss = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Contender(model.encoder, batches(settings, data), step, str(device.dtype).removeprefix("torch."))


def batches(settings: Namespace, data: Data) -> Iterator[Batch]:
    """Images in the order of their epoch; the views are made in the step."""
    for epoch in count():
        order = data.fit[permutation(settings.seed, epoch, len(data.fit))]
        for start in range(0, len(order) - settings.batch + 1, settings.batch):
            yield data.train.batch(order[start : start + settings.batch], seed=settings.seed, epoch=epoch)


if __name__ == "__main__":
    compete("nearfar", prepare)
