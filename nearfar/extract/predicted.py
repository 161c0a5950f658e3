"""A small network on one view's embedding says what another view's embedding will be.

Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, section 3.1, https://arxiv.org/abs/2006.07733.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..method import Batch, Memory, Pairs


class Predicted(nn.Module):
    """`predictor(z_i)` looks for the slow embedding of each other view j of its image, one comparison for (i, j).

    The slow side carries no gradient, also where there is no teacher and it is the trained network's own (SimSiam).

    Args:
        predictor: `[B, D] -> [B, D]`. It sees one view at a time, so its batch norm has the statistics of one.
        among: True: it looks among the slow embeddings of view j of the whole batch (MoCo v3). False: nothing but
            its own is there, and there are no negatives (BYOL, SimSiam).
        weight: Of each comparison; the loss is their sum.
        constant_lr: The learning rate of the predictor stays at its peak.
    """

    def __init__(
        self, predictor: nn.Module, *, among: bool = False, weight: float = 1.0, constant_lr: bool = False
    ) -> None:
        super().__init__()
        self.predictor, self.among, self.weight, self.constant_lr = predictor, among, weight, constant_lr

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """Two comparisons for two views."""
        predicted, targets = [self.predictor(z) for z in online], [z.detach() for z in slow]
        return [
            self._pairs(predicted[i], targets[j], batch.ids)
            for i in range(len(predicted))
            for j in range(len(targets))
            if i != j
        ]

    def _pairs(self, anchor: Tensor, target: Tensor, ids: Tensor) -> Pairs:
        if self.among:
            return Pairs(anchor, target, anchor_key=ids, other_key=ids, weight=self.weight)
        return Pairs(anchor, target[:0], positive=target, weight=self.weight, gather=False)
