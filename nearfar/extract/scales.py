"""One view's vector finds the other view's cells: maps of several depths, compared across views.

Shapes: B images, L cells of a map, C channels of a map, D width of an embedding.

Bachman, Hjelm & Buchwalter, Learning Representations by Maximizing Mutual Information Across Views, NeurIPS 2019,
https://arxiv.org/abs/1906.00910, sections 3.3 to 3.5.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.norm import BatchNorm
from ..encoders.pooled import pooled
from ..errors import UsageError
from ..method import Batch, Memory, Pairs
from ..randomness import uniforms

CELL = 2**32 + 2  # beside the numbers of views and of PatchMix, so that this draw is independent of them
USUAL = (5, 7)  # sides of the maps that the paper compares


class Local(nn.Module):
    """`norm(1x1(relu(1x1(x))) + linear(x))` of every cell, `[B, C, h, w] -> [B, h * w, D]`.

    The linear map starts as the identity, as far as it goes.

    Args:
        width_in: Channels C of the map.
        width: Width D of an embedding.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width_in, width, bias=False), nn.Linear(width, width, bias=False)
        self.shortcut, self.norm = nn.Linear(width_in, width), BatchNorm(width)
        nn.init.eye_(self.shortcut.weight)
        nn.init.zeros_(self.shortcut.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Cells row by row."""
        cells = x.flatten(2).mT
        return _normed(self.second(torch.relu(self.first(cells))) + self.shortcut(cells), self.norm)


class Direct(nn.Module):
    """`norm(x)` of every vector, `[B, L, C] -> [B, L, D]`; where widths differ `norm(linear(x))`."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.map = nn.Identity() if width_in == width else nn.Linear(width_in, width, bias=False)
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of vectors."""
        return _normed(self.map(x), self.norm)


class Scales(nn.Module):
    """The view as one vector, then the cells of some of its maps, `[B, 1 + L_1 + L_2 + ..., D]`: AMDIM's head.

    The vector is the last map's mean (for AMDIM's network the 1x1 itself) through `Direct`, cells go through `Local`,
    a map after another, row by row.

    Args:
        net: Encoder whose maps these are; it is asked for their shapes once.
        channels: Channels of a view.
        size: Side of a view, pixels.
        sides: Sides of the maps, in cells. None: 5 and 7, or where these aren't there the two deepest.
        width: Width D of an embedding; None: the encoder's.

    Raises:
        UsageError: The encoder has no such maps.

    Example:
        >>> import torch
        >>> from nearfar import encoders
        >>> net = encoders.build("small", channels=3, size=32)
        >>> head = Scales(net, channels=3, size=32)
        >>> head.sides, head(net(torch.zeros(2, 3, 32, 32))).shape
        ((4, 8), torch.Size([2, 81, 256]))
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        channels: int,
        size: int,
        sides: Sequence[int] | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__()
        shapes = map_shapes(net, channels=channels, size=size)
        deepest = {shape[-1]: number for number, shape in enumerate(shapes) if len(shape) == 3 and shape[-1] > 1}
        self.sides = _sides(sides, deepest)
        self.numbers = tuple(deepest[side] for side in self.sides)
        whole = shapes[-1][1 if len(shapes[-1]) == 2 else 0]
        self.whole = Direct(whole, width or whole)
        self.local = nn.ModuleList(Local(shapes[number][0], width or whole) for number in self.numbers)

    @property
    def cells(self) -> tuple[int, ...]:
        """How many embeddings each part has: 1, then the cells of each map."""
        return (1, *(side**2 for side in self.sides))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of one view -> its embeddings."""
        parts = [self.whole(pooled(maps).unsqueeze(1))]
        parts += [local(maps[number]) for local, number in zip(self.local, self.numbers, strict=True)]
        return torch.cat(parts, dim=1)


class LastMap(nn.Module):
    """The cells of the last map through `Direct`, `[B, L, D]`: YADIM's head. One embedding where it is 1x1 or a vector.

    Args:
        width_in: Width of the encoder.
        width: Width D of an embedding; None: the encoder's.
        pool: One embedding a view in any case, the mean of the last map.
    """

    def __init__(self, width_in: int, *, width: int | None = None, pool: bool = False) -> None:
        super().__init__()
        self.pool, self.direct = pool, Direct(width_in, width or width_in)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of one view -> its embeddings."""
        last = maps[-1]
        if self.pool or last.ndim == 2:
            return self.direct(pooled(maps).unsqueeze(1))
        return self.direct(last.flatten(2).mT if last.ndim == 4 else last)


def across_scales(
    online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None, *, cells: tuple[int, ...]
) -> list[Pairs]:
    """Vectors of a view meet the cells of another view's maps, those of their own image being positives (AMDIM).

        whole -> each map,  then one cell of the first map -> that map;  for each order of two views

    The cell is drawn for each image and view, as a pure function of (seed, epoch, id, view).

    Args:
        online, slow, batch, memory: See `Extract`; embeddings `[B, sum of cells, D]`.
        cells: `Scales.cells`: how many embeddings each part has, the whole first.

    Returns:
        Comparisons of each order one after the other. Weights make them the mean over orders of a sum over maps.
    """
    ids, orders = batch.ids, list(permutations(range(len(online)), 2))
    drawn = uniforms(batch.seed, batch.epoch, ids.cpu().numpy(), CELL, len(online))
    cell = torch.from_numpy((drawn * cells[1]).astype(np.int64)).to(ids.device)
    pairs = []
    for here, there in orders:
        whole, first, *_ = online[here].split(cells, dim=1)
        one = first[torch.arange(len(ids), device=ids.device), cell[:, here]]
        targets = slow[there].split(cells, dim=1)[1:]
        sources = [(whole[:, 0], target) for target in targets] + [(one, targets[0])]
        pairs += [_own_image(anchor, target, ids, 1 / len(orders)) for anchor, target in sources]
    return pairs


def across_views(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """Every embedding of a view meets those of another view, those of its own image being positives (YADIM).

    Args:
        online, slow, batch, memory: See `Extract`; embeddings `[B, D]` or, of L cells, `[B, L, D]`.

    Returns:
        A comparison for each order of two views; weights make it their mean.
    """
    orders = list(permutations(range(len(online)), 2))
    return [_own_image(online[here], slow[there], batch.ids, 1 / len(orders)) for here, there in orders]


def _own_image(anchor: Tensor, other: Tensor, ids: Tensor, weight: float) -> Pairs:
    """Embeddings `[B, D]` or `[B, L, D]` of both sides, with the image as key."""
    anchor_key, other_key = (ids.repeat_interleave(z[0, ..., 0].numel()) for z in (anchor, other))
    width = anchor.shape[-1]
    return Pairs(anchor.reshape(-1, width), other.reshape(-1, width), anchor_key, other_key, weight=weight)


def map_shapes(net: nn.Module, *, channels: int, size: int) -> list[torch.Size]:
    """Shapes of what an encoder returns for one view, without the batch; neither its state nor torch's generator moves.

    Example:
        >>> [list(shape) for shape in map_shapes(nn.Conv2d(3, 4, 3), channels=3, size=9)]
        [[4, 7, 7]]
    """
    net = copy.deepcopy(net).eval()
    weight = next(net.parameters(), torch.empty(0))
    view = torch.zeros(2, channels, size, size, device=weight.device, dtype=weight.dtype)
    with torch.no_grad(), torch.random.fork_rng([weight.device] if weight.device.type == "cuda" else []):
        found = net(view)
    return [part.shape[1:] for part in (found if isinstance(found, (list, tuple)) else [found])]


def _normed(cells: Tensor, norm: BatchNorm) -> Tensor:
    return norm(cells.flatten(0, 1)).view_as(cells)


def _sides(wanted: Sequence[int] | None, deepest: dict[int, int]) -> tuple[int, ...]:
    """Sides of the maps to compare, of those there are: the paper's, or the two deepest, the deeper first."""
    there = sorted(deepest, key=lambda side: -deepest[side])
    told = f"the encoder's maps of more than one cell have sides {', '.join(map(str, there)) or 'none'}"
    if wanted is None:
        wanted = USUAL if set(USUAL) <= set(there) else there[:2]
        if len(wanted) < 2:
            only = f"scales={there[0]} for that one, or " if there else ""
            raise UsageError(f"{told}: two are compared", where="encoder", mend=f"{only}--encoder amdim-small")
    if not wanted or not set(wanted) <= set(there):
        mend = f"scales={','.join(map(str, there[:2]))}" if there else "--encoder amdim-small"
        raise UsageError(f"{told}, not {', '.join(map(str, wanted)) or 'none'}", where="scales", mend=mend)
    return tuple(wanted)
