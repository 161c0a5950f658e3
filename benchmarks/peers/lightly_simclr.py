"""lightly's SimCLR on CIFAR-10 for a fixed number of seconds.

Its transform, head and loss, in the loop of its examples.

python -m benchmarks.peers.lightly_simclr --seconds 1200 --threads 1
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import numpy as np
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import SIZE, Contender, Data, compete, sgd
from nearfar.encoders import pooled


class Images(Dataset):
    """Decoded images in memory, each given to the transform as a PIL image, as torchvision's CIFAR10 does it."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: SimCLRTransform) -> None:
        self.images, self.labels, self.transform = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class SimCLR(nn.Module):
    """Backbone and projection head."""

    def __init__(self, backbone: nn.Module, *, hidden: int = 512) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(backbone.width, hidden, 128)

    def forward(self, view: Tensor) -> Tensor:
        """Embeddings of one view."""
        return self.projection_head(pooled(self.backbone(view)))


def prepare(settings: Namespace, data: Data, encoder: nn.Module) -> Contender:
    """fp32 as in lightly's examples; `--precision bf16` adds what a user can add: autocast and channels_last."""
    bf16 = settings.precision == "bf16"
    model = SimCLR(encoder).to(memory_format=torch.channels_last if bf16 else torch.contiguous_format)
    criterion, optimizer = NTXentLoss(temperature=0.5), sgd(model, settings)

    def step(batch: tuple[list[Tensor], Tensor], lr: float) -> float:
        optimizer.param_groups[0]["lr"] = lr
        first, second = batch[0]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = criterion(model(first), model(second))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return Contender(model.backbone, batches(settings, data), step, "bfloat16" if bf16 else "float32")


def batches(settings: Namespace, data: Data) -> Iterator[tuple[list[Tensor], Tensor]]:
    """A DataLoader with a worker for each core, kept from epoch to epoch."""
    transform = SimCLRTransform(input_size=SIZE, cj_strength=0.5, gaussian_blur=0.0)
    images = Images(np.asarray(data.train.inputs)[data.fit], np.asarray(data.train.labels)[data.fit], transform)
    loader = DataLoader(
        images,
        batch_size=settings.batch,
        shuffle=True,
        drop_last=True,
        num_workers=settings.threads,
        persistent_workers=True,
    )
    while True:
        yield from loader


if __name__ == "__main__":
    compete("lightly", prepare)
