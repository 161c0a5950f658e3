"""The residual networks of 12 layers of few-shot learning, in the three forms that papers report.

Wide: Lee et al., MetaOptNet, CVPR 2019, https://arxiv.org/abs/1904.03758;
Tian et al., RFS, ECCV 2020, https://arxiv.org/abs/2003.11539.
Narrow: Oreshkin et al., TADAM, NeurIPS 2018, https://arxiv.org/abs/1805.10123;
Chen et al., Meta-Baseline, ICCV 2021, https://arxiv.org/abs/2003.04390.
Grid: Hou et al., CAN, NeurIPS 2019, https://arxiv.org/abs/1910.07677; Liu et al., infoPatch, AAAI 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..errors import UsageError
from .dropblock import DropBlock
from .norm import BatchNorm
from .resnet import SMALL, convolution

SMALLEST = 16  # pixels: four halvings leave one position
RATE = 0.1  # of dropout and DropBlock
SLOPE = 0.1  # of LeakyReLU below 0


@dataclass(frozen=True, kw_only=True)
class Form:
    """What tells one ResNet-12 from another.

    Args:
        widths: Channels of the four blocks.
        drop: Dropout after blocks 1 and 2, DropBlock after blocks 3 and 4.
        grid: No max-pool after block 4, and maps of odd sides are rounded up where they are halved.
        known: Where it is used, for people.
    """

    widths: tuple[int, int, int, int]
    drop: bool
    grid: bool
    known: str


FORMS = {
    "resnet12": Form(widths=(64, 160, 320, 640), drop=True, grid=False, known="wide, as in MetaOptNet and RFS"),
    "resnet12-narrow": Form(
        widths=(64, 128, 256, 512), drop=False, grid=False, known="narrow, as in TADAM and Meta-Baseline"
    ),
    "resnet12-grid": Form(
        widths=(64, 128, 256, 512), drop=True, grid=True, known="narrow with a fine last map, as in CAN and infoPatch"
    ),
}


class Block(nn.Module):
    """`drop(pool(act(shortcut(x) + norm(3x3(act(norm(3x3(act(norm(3x3(x)))))))))))`, act LeakyReLU of slope 0.1.

    The activation of the sum is computed after the pool: it grows with its argument, so the result is the same, and a
    quarter of the values take part.
    """

    def __init__(self, width_in: int, width: int, pool: nn.Module, drop: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(width_in, width, 3), BatchNorm(width)
        self.conv2, self.bn2 = convolution(width, width, 3), BatchNorm(width)
        self.conv3, self.bn3 = convolution(width, width, 3), BatchNorm(width)
        self.downsample = nn.Sequential(convolution(width_in, width, 1), BatchNorm(width))
        self.act = nn.LeakyReLU(SLOPE, inplace=True)
        self.pool, self.drop = pool, drop

    def forward(self, x: Tensor) -> Tensor:
        """Output map of one input map."""
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)).add_(self.downsample(x))
        return self.drop(self.act(self.pool(y)))


class ResNet12(nn.Module):
    """View `[B, channels, size, size]` -> four maps, the side halved after each block (84 px: 42, 21, 10, 5).

    In the grid form the third halving rounds up and the last map is not halved: 84 px give 42, 21, 11, 11 and 32 px
    give 16, 8, 4, 4. Weights are He-normal over outputs with gain sqrt 2, norms start at 1 and 0. Modules are named as
    in the code of RFS, so its weights fit the wide form: `net.load_state_dict(weights, strict=False)`.

    Args:
        form: Name in `FORMS`.
        channels: Channels of a view.
        size: Side of a view, pixels, >= 16 (grid: >= 8). Up to 64 the squares of DropBlock have side 2, above 5.
        factor: Multiplies the channels of all layers.

    Raises:
        UsageError: Views too small.

    Differs from the paper codes: see `DropBlock` for its ramp.
    """

    def __init__(self, form: str, *, channels: int, size: int, factor: int = 1) -> None:
        super().__init__()
        self.form = FORMS[form]
        if size < SMALLEST and not self.form.grid:
            raise UsageError(
                f"{form} can't take {channels} channels of {size} x {size} pixels",
                where="encoder",
                mend=f"views of at least {SMALLEST} pixels, or resnet12-grid",
            )
        self.square = 2 if size <= SMALL else 5
        before, blocks = channels, []
        for number, width in enumerate(width * factor for width in self.form.widths):
            blocks.append(nn.Sequential(Block(before, width, self._pool(number), self._drop(number))))
            before = width
        self.layer1, self.layer2, self.layer3, self.layer4 = blocks
        self.width = before
        self.name = form + (f"-x{factor}" if factor > 1 else "")

    def _pool(self, number: int) -> nn.Module:
        if self.form.grid and number == 3:
            return nn.Identity()
        return nn.MaxPool2d(2, ceil_mode=self.form.grid)

    def _drop(self, number: int) -> nn.Module:
        if not self.form.drop:
            return nn.Identity()
        return nn.Dropout(RATE) if number < 2 else DropBlock(rate=RATE, size=self.square)

    def forward(self, view: Tensor) -> list[Tensor]:
        """Maps after each of the four blocks."""
        first = self.layer1(view)
        second = self.layer2(first)
        third = self.layer3(second)
        return [first, second, third, self.layer4(third)]

    def describe(self) -> str:
        """One line for people: name, form, regularisation, width, parameters."""
        drop = f"dropout and DropBlock of side {self.square}" if self.form.drop else "no dropout"
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}: {self.form.known}, {drop}, width {self.width}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()
