"""Losses with weights: their scale is learned with the encoder.

CLIP: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
https://arxiv.org/abs/2103.00020, section 2.4 and figure 3. SigLIP: Zhai et al., ICCV 2023,
https://arxiv.org/abs/2303.15343, section 3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .infonce import infonce
from .sigmoid import sigmoid


class LearnedTemperature(nn.Module):
    """`infonce` with a temperature that is learned as its negative logarithm: `exp(-log_scale)`.

        scores = scale * s,    scale = min(exp(log_scale), largest)

    `log_scale` is put back to at most `log largest` before each use, not after each step as in the paper: what is
    used is the same, no one has to call anything, and a run that was stopped goes on bit for bit. The optimiser's own
    state is left alone. Where one method makes several comparisons the module is shared, and so is the scale.

    Args:
        temperature: To begin with, > 0.
        largest: Limit of the scale, >= 1 / temperature.

    Raises:
        UsageError: A temperature that is no number > 0, or a scale beyond the limit to begin with.

    Example:
        >>> round(LearnedTemperature(0.07).log_scale.item(), 4)
        2.6593
    """

    def __init__(self, temperature: float = 0.07, *, largest: float = 100.0) -> None:
        super().__init__()
        if not (0 < temperature < math.inf and 1 / temperature <= largest < math.inf):
            raise UsageError(
                f"a temperature of {temperature}, a largest scale of {largest}",
                where="temperature",
                mend=f"a temperature from {1 / largest:g} on, such as 0.07"
                if largest > 0
                else "a largest scale of 100",
            )
        self.largest = largest
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return min(math.exp(self.log_scale.item()), self.largest)

    def forward(self, pairs: Pairs, similarity: Similarity) -> Tensor:
        """Loss of a comparison, a scalar."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.largest))
        return infonce(pairs, similarity, temperature=(-self.log_scale).exp())


class LearnedSigmoid(nn.Module):
    """`sigmoid` whose scale and bias are learned: `scale = exp(log_scale)`.

    Args:
        scale: To begin with, > 0.
        bias: To begin with; as low as it is, no pair is taken for a match before anything was learned.

    Raises:
        UsageError: A scale that is no number > 0, or a bias that is no number.

    Example:
        >>> loss = LearnedSigmoid()
        >>> round(loss.log_scale.item(), 4), loss.bias.item()
        (2.3026, -10.0)
    """

    def __init__(self, scale: float = 10.0, *, bias: float = -10.0) -> None:
        super().__init__()
        if not (0 < scale < math.inf and math.isfinite(bias)):
            raise UsageError(f"a scale of {scale}, a bias of {bias}", where="scale, bias", mend="10 and -10 are usual")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return math.exp(self.log_scale.item())

    def forward(self, pairs: Pairs, similarity: Similarity) -> Tensor:
        """Loss of a comparison, a scalar."""
        return sigmoid(pairs, similarity, scale=self.log_scale.exp(), bias=self.bias)
