"""Features of a whole data set, in its order, from a frozen encoder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ..ahead import Ahead
from ..data.inputs import blocks
from ..errors import UsageError
from ..method import Batch
from ..upload import made_on, sent


class Images(Protocol):
    """What is asked of a data set."""

    def __len__(self) -> int: ...
    def batch(self, indices: np.ndarray, /) -> Batch: ...


def features(
    encode: Callable[[Tensor], Tensor],
    dataset: Images,
    transform: Callable[[Tensor, Tensor], Tensor],
    *,
    batch: int = 256,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Features of every image, float32 `[N, D]` on the CPU; row i is image i, and the last part is never dropped.

    Every module that runs inside `encode` is in eval mode meanwhile and goes back to its own mode afterwards, so that
    batch norm neither sees nor learns from the evaluation data.

    Args:
        encode: View `[B, C, s, s]` -> features `[B, D]`.
        dataset: Has `len()` and `batch(indices)`.
        transform: Images uint8 `[B, C, H, W]`, sizes `[B, 2]` -> view. The same for training and test images, without
            random augmentation (`views.CentreCrop`).
        batch: Images at once, >= 1; of long sounds and sequences as many as fit into memory (`data.inputs.blocks`).
        device: Where transform and encoder run.
        dtype: Precision of autocast; torch.float32: none.
        progress: Called with (images done, images in all) after each part.

    Raises:
        UsageError: The data set is empty, or `encode` doesn't give one vector an image.

    Example:
        >>> class Grey:
        ...     def __len__(self) -> int:
        ...         return 3
        ...     def batch(self, indices):
        ...         shape = torch.ones(len(indices), 1, 8, 8, dtype=torch.uint8)
        ...         return Batch(shape, torch.full((len(indices), 2), 8), torch.from_numpy(indices))
        >>> features(lambda view: view.mean(dim=(2, 3)), Grey(), lambda images, sizes: images / 1).shape
        torch.Size([3, 1])
    """
    settings = {"batch": batch, "device": device, "dtype": dtype, "progress": progress}
    rows: Tensor | None = None
    done = 0
    for part in parts(encode, dataset, transform, **settings):
        if rows is None:
            rows = torch.empty(len(dataset), part.shape[1], dtype=torch.float32)
        rows[done : done + len(part)] = part
        done += len(part)
    assert rows is not None
    return rows


@torch.no_grad()
def parts(
    encode: Callable[[Tensor], Tensor],
    dataset: Images,
    transform: Callable[[Tensor, Tensor], Tensor],
    *,
    done: int = 0,
    batch: int = 256,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[Tensor]:
    """The rows of `features`, a part at a time; the next images are read and made views of meanwhile.

    Args:
        encode: As in `features`, and so are all others.
        dataset: Images.
        transform: Images and sizes -> view.
        done: Images at the beginning that are left out, as many as in some number of parts.
        batch: Images at once.
        device: Where transform and encoder run.
        dtype: Precision of autocast.
        progress: Called after each part.

    Raises:
        UsageError: As `features`.
    """
    n, device = len(dataset), torch.device(device)
    if n == 0:
        raise UsageError("there are no images to encode", where="dataset")
    places = [indices for indices in blocks(dataset, batch) if indices[0] >= done]
    there = made_on(transform, device)

    @torch.no_grad()  # it is each thread's own
    def view(number: int) -> Tensor:
        part = dataset.batch(places[number])
        part = sent(part, device) if there else part
        return transform(part.inputs, part.sizes)

    with Ahead(view, total=len(places), device=device) as ahead:
        for number, indices in enumerate(places):
            given = ahead(number).to(device, non_blocking=True)
            with evaluation_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                output = encode(given)
            if output.ndim != 2 or len(output) != len(indices):
                raise UsageError(
                    f"encode gave {list(output.shape)} for {len(indices)} images",
                    where="encode",
                    mend="it must give one vector an image, for example lambda view: pooled(encoder(view))",
                )
            yield output.float().cpu()
            if progress is not None:
                progress(int(indices[-1]) + 1, n)


@contextlib.contextmanager
def evaluation_mode() -> Iterator[None]:
    """Every module that is called meanwhile, and all below it, is in eval mode; afterwards each has its mode back.

    `encode` is any callable, so which modules are in it is only known once they run.
    """
    training: list[nn.Module] = []

    def to_eval(module: nn.Module, _: object) -> None:
        if module.training:
            training.extend(m for m in module.modules() if m.training)
            module.eval()

    # A compiled network would be compiled anew for each hook.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
    hook = register_module_forward_pre_hook(to_eval)
    try:
        with eager:
            yield
    finally:
        hook.remove()
        for module in training:
            module.training = True
