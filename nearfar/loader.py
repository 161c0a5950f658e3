"""What a step works on: its batch and the views of it.

Views are a function of the batch, and a batch of its step, so who makes them when changes no number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .batch import Batch
from .device import Device
from .upload import made_on, sent

Given = tuple[Batch, list[Tensor] | None]


class Loader:
    """Step -> its batch and views, `loader(step)`; may be called in a thread of its own (`Ahead`).

    Views are None where the step has to make them itself: a module may change with the step, and views that draw from
    torch's generator want it as the step seeds it. The first batch tells whether they do.

    Args:
        batch: Step -> its batch.
        views: Batch -> views, as in `Method`; None: the model asks for none.
        device: Where the steps run. Views are made in its autocast, as in a step.

    Example:
        >>> from nearfar.device import choose
        >>> batch = Batch(torch.full((1,), 3), torch.ones(1, 2), torch.arange(1))
        >>> Loader(lambda step: batch, lambda batch: [batch.inputs / 2], device=choose("cpu"))(0)[1]
        [tensor([1.5000])]
    """

    def __init__(
        self, batch: Callable[[int], Batch], views: Callable[[Batch], list[Tensor]] | None, *, device: Device
    ) -> None:
        self.batch, self.device = batch, device
        self.views = None if isinstance(views, nn.Module) else views
        self.there = made_on(views, device.device)
        self.first = True

    def __call__(self, step: int) -> Given:
        """Batch and views of a step. While the first are made no step runs, so that only views move the generator."""
        batch = self.batch(step)
        if self.there:
            return self.on_device(sent(batch, self.device.device))
        if self.views is None:
            return batch, None
        before = torch.get_rng_state() if self.first else None
        with self.device.autocast():
            views = self.views(batch)
        moved = before is not None and not torch.equal(before, torch.get_rng_state())
        self.first = False
        if moved or any(view.device.type != "cpu" for view in views):
            self.views = None
            return batch, None
        return batch, [view.pin_memory() for view in views] if self.device.device.type == "cuda" else views

    def on_device(self, batch: Batch) -> Given:
        """Views that are made on an accelerator. All threads have one stream there, so the order of its work is kept.

        Drawing and launching so take place while a step runs. Without memory for them the step makes them itself: it
        knows how to go on with less.
        """
        if self.views is None:
            return batch, None
        try:
            with self.device.autocast():
                return batch, self.views(batch)
        except torch.OutOfMemoryError:
            return batch, None
