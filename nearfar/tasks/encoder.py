"""A trained encoder with the input transform it was trained for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from .. import encoders
from ..data import Dataset
from ..data.pairs import has_images, load_pairs
from ..data.source import LABEL
from ..device import Device, choose
from ..errors import UsageError
from ..evaluation import features
from ..method import Batch, Method
from ..runs import Run, match_tensors, read_tensors
from ..settings import TrainSettings
from ..views import CentreCrop
from .build import Shape, build_method, initial
from .opening import Transform, pictures_of, reopen, store_size, transform_from

SCALES = (7, 5)
"""Sides of AMDIM's maps that are looked at besides the last."""


@dataclass(frozen=True)
class Pictures:
    """A column of a data set."""

    dataset: Dataset
    column: str

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: np.ndarray, /) -> Batch:
        """Its pictures as the inputs."""
        batch = self.dataset.batch(indices)
        return batch.of(self.column) if self.column in batch.columns else batch


@dataclass(frozen=True)
class Encoder:
    """An encoder in evaluation mode. `encoder(dataset)` gives its features.

    Args:
        net: View -> list of feature maps.
        transform: `(inputs, sizes) -> view`, the one stored with the run.
        channels: Channels of an image, of the first where a sample has several.
        device: Where it runs.
        run: Run folder it comes from.
        split: View -> views, where a method looks at parts of an image with an encoder each (CMC: L and ab); the
            features are then those of all, side by side.
        columns: Pictures of a sample, where a method compares several (CMC with `columns`).
    """

    net: nn.Module
    transform: Transform
    channels: int
    device: Device
    run: Path
    split: Callable[[Tensor], Tensor | list[Tensor]] | None = None
    columns: tuple[str, ...] = ()

    def __call__(self, dataset: Dataset) -> Tensor:
        """Features, fp32 `[len(dataset), width]`, in the order of the data set: the average of the last map.

        Of an encoder of several pictures those of all, side by side, where the data set has them all; otherwise those
        of the first.
        """
        if self.further(dataset):
            return torch.cat(list(self.each(dataset).values()), dim=1)
        return features(self.vectors, dataset, self.transform, device=self.device.device)

    def each(self, dataset: Dataset) -> dict[str, Tensor]:
        """Features of each picture of a sample, by column, or of each part of an image (L, ab); {} for one network."""
        parts = self.net.names if self.split is not None and isinstance(self.net, encoders.Towers) else []
        names, device = self.columns if self.further(dataset) else parts, self.device.device
        nets = {name: self.of(name) for name in names}
        return {
            name: features(net.vectors, Pictures(dataset, name), net.transform, device=device)
            for name, net in nets.items()
        }

    def scales(self, dataset: Dataset) -> dict[str, Tensor]:
        """Features of each map that AMDIM's networks compare, averaged over its cells; {} of other networks."""
        if not isinstance(self.net, encoders.AmdimNet):
            return {}
        names: list[str] = []

        def vectors(view: Tensor) -> Tensor:
            with self.device.autocast():
                maps = [one for one in self.net(view) if one.shape[-1] in SCALES]
            names[:] = [f"{one.shape[-1]} x {one.shape[-1]} cells" for one in maps]
            return torch.cat([encoders.pooled([one.float()]) for one in maps], dim=1)

        found = features(vectors, dataset, self.transform, device=self.device.device)
        return dict(zip(names, found.chunk(len(names), dim=1), strict=True))

    def further(self, dataset: Dataset) -> tuple[str, ...]:
        """Columns that it looks at besides the first; () where the data set lacks one."""
        return self.columns[1:] if set(self.columns[1:]) <= set(dataset.columns) else ()

    @property
    def crop(self) -> CentreCrop:
        """The transform, of an encoder of images.

        Raises:
            UsageError: It is one of something else.
        """
        if isinstance(self.transform, CentreCrop):
            return self.transform
        raise UsageError("this is no encoder of images", where=self.run, mend="train, evaluate and embed know its data")

    def of_images(self) -> Encoder:
        """Itself, or the encoder of the first picture, where a sample has several.

        Raises:
            UsageError: It is an encoder of something else.
        """
        assert self.crop
        return self.first()

    def first(self) -> Encoder:
        """That of the first column, where a sample has several pictures, otherwise itself."""
        return self.of(self.columns[0]) if self.columns else self

    def vectors(self, view: Tensor) -> Tensor:
        """View `[B, C, s, s]` -> features `[B, width]`."""
        net, given = self.net, view if self.split is None else self.split(view)
        if isinstance(net, encoders.Towers) and self.split is None:
            net = net[net.names[0]]
        with self.device.autocast():
            maps = net(given)
        return encoders.pooled([maps[-1].float()])

    def of(self, column: str) -> Encoder:
        """The network of a column (`image2`, `text`) with its transform, or of a part of an image (`L`, `ab`).

        Raises:
            UsageError: There is none.
        """
        net = self.net
        names = net.names if isinstance(net, encoders.Towers) else list(self.columns)
        if column not in names:
            raise UsageError(
                f"this run has no encoder of {column!r}", where=self.run, mend=f"it has {', '.join(names) or 'one'}"
            )
        stored = Run.open(self.run).info.get("transforms", {})
        transform = transform_from(stored[column]) if column in stored else self.transform
        net = net[column] if isinstance(net, encoders.Towers) else net  # one network may be shared by all
        split, number = self.split, names.index(column)
        part = None if split is None else lambda view: split(view)[number]
        return replace(self, net=net, transform=transform, split=part, columns=())

    def untrained(self) -> Encoder:
        """The same net with the fresh weights of the run's seed, also where the run began with those of another."""
        return _encoder(Run.open(self.run), self.device)

    def load(self, data: str | Path, *, labels: bool | None = None, label: str | None = None) -> Dataset:
        """Data, decoded as this encoder wants it; `labels` as in `nearfar.load`, `label` the column they are in.

        Where the encoder is of several pictures a sample, and the data has them all, with all of them.
        """
        if self.columns and has_images(data, self.columns):
            size = store_size(self.crop.size)
            given: dict[str, Any] = {"labels": labels, "label": label or LABEL}
            return load_pairs(data, size=size, columns=self.columns, channels=self.channels, **given)
        return reopen(data, self.transform, channels=self.channels, labels=labels, label=label)


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
    settings = TrainSettings(**run.settings)
    shape = replace(stored_shape(run), samples=1)  # a memory of all samples would be made to be thrown away
    return initial(settings.seed, lambda: build_method(settings, shape))


def stored_shape(run: Run) -> Shape:
    """What the method of a run was told of the data."""
    if "shape" in run.info:
        stored = run.info["shape"]
        given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in stored.items()}
        return Shape(**given)
    transform = run.info["transform"]  # a run of images alone, from before there was anything else
    return Shape(transform["size"], len(transform["mean"] or ()), len(run.info["classes"] or ()) or None)


def _encoder(run: Run, device: Device) -> Encoder:
    """The encoder with the fresh weights of the run's seed."""
    method = stored_method(run)
    convert_conv2d_weight_memory_format(method.encoder.eval().to(device.device), torch.channels_last)
    split = getattr(method.views, "split", None)
    transform = transform_from(run.info["transform"])
    columns = pictures_of(TrainSettings(**run.settings))
    return Encoder(method.encoder, transform, stored_shape(run).first, device, run.path, split, columns)
