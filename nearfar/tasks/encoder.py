"""A trained encoder with the input transform it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from .. import encoders
from ..data import Dataset, load
from ..device import Device, choose
from ..errors import UsageError
from ..evaluation import features
from ..method import Method
from ..runs import Run, match_tensors, read_tensors
from ..settings import TrainSettings
from ..views import CentreCrop
from .build import build_method, initial, store_size


@dataclass(frozen=True)
class Encoder:
    """An encoder in evaluation mode. `encoder(dataset)` gives its features.

    Args:
        net: View -> list of feature maps.
        transform: `(uint8 images, sizes) -> view`, the one stored with the run.
        channels: Channels of an image.
        device: Where it runs.
        run: Run folder it comes from.
    """

    net: nn.Module
    transform: CentreCrop
    channels: int
    device: Device
    run: Path

    def __call__(self, dataset: Dataset) -> Tensor:
        """Features, fp32 `[len(dataset), width]`, in the order of the data set: the average of the last map."""
        return features(self.vectors, dataset, self.transform, device=self.device.device)

    def vectors(self, view: Tensor) -> Tensor:
        """View `[B, C, s, s]` -> features `[B, width]`."""
        with self.device.autocast():
            maps = self.net(view)
        return encoders.pooled([maps[-1].float()])

    def untrained(self) -> Encoder:
        """The same net with the fresh weights of the run's seed, also where the run began with those of another."""
        return _encoder(Run.open(self.run), self.device)

    def load(self, data: str | Path, *, labels: bool | None = None) -> Dataset:
        """Data, decoded as this encoder wants it; `labels` as in `nearfar.load`."""
        return load(data, size=store_size(self.transform.size), channels=self.channels, labels=labels)


def load_encoder(run: str | Path, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """The encoder of a finished run.

    Args:
        run: Run folder.
        device: As in `train`.
        precision: As in `train`.

    Raises:
        UsageError: No run there.
        IntegrityError: The weights don't fit the net.
    """
    folder = Run.open(Path(run))
    encoder = _encoder(folder, choose(device, precision))
    path = folder.path / "encoder.safetensors"
    if not path.exists():
        raise UsageError(
            "the run is not finished", where=folder.path, mend="the `nearfar train` command again goes on with it"
        )
    weights = read_tensors(path)
    match_tensors(encoder.net.state_dict(), weights, where=path)
    encoder.net.load_state_dict(weights)
    return encoder


def stored_method(run: Run) -> Method:
    """The method of a run with the fresh weights of its seed, not those of `--init`; a teacher is left out."""
    transform, settings = CentreCrop.from_dict(run.info["transform"]), TrainSettings(**run.settings)
    channels, classes = len(transform.mean or ()), run.info["classes"]
    return initial(
        settings.seed, lambda: build_method(settings, transform.size, channels, classes=len(classes or ()) or None)
    )


def _encoder(run: Run, device: Device) -> Encoder:
    """The encoder with the fresh weights of the run's seed."""
    transform = CentreCrop.from_dict(run.info["transform"])
    channels = len(transform.mean or ())
    net = stored_method(run).encoder
    convert_conv2d_weight_memory_format(net.eval().to(device.device), torch.channels_last)
    return Encoder(net, transform, channels, device, run.path)
