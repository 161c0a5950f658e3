"""A memory bank: one embedding of every sample and view, each as it was when the sample was last seen.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, sections 3.1 to 3.3,
https://arxiv.org/abs/1805.01978.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributed import gather
from .errors import UsageError
from .method import Batch
from .randomness import uniforms
from .similarity import unit

DRAWN = 1 << 32
"""Number under which rows are drawn, in the place of a view's; no method has so many views."""


class Bank(nn.Module):
    """One unit vector for each sample and view. After each step those of its samples move:

        u <- hat(decay * u + (1 - decay) * hat(v)),    hat(x) = x / |x|

    Of a sample that is in a step twice the last one counts, in the order of the processes and of their batches. Every
    process takes the embeddings of all, so all hold the same bank.

    Args:
        samples: Number n of rows a view; the row of a sample is its id, so the largest id is n - 1. Samples that are
            not trained on keep the row they began with.
        width: Width D of an embedding.
        views: Number V of views that have a row of their own.
        decay: Share of the old row that stays, in [0, 1].

    Starts with rows drawn from torch's generator at construction, each entry uniform in `[-a, a]`, a = sqrt(3 / D),
    then made unit; in released code they stay as drawn, and are unit on average. The paper replaces rows (`decay` 0)
    and slows embeddings down by a term in the loss; its released code has `decay` 0.5 instead.

    Example:
        >>> import torch
        >>> from nearfar.method import Batch
        >>> bank = Bank(samples=5, width=2)
        >>> bank.embeddings[0, 3] = torch.tensor([1.0, 0.0])
        >>> batch = Batch(inputs=torch.empty(1), sizes=torch.empty(1), ids=torch.tensor([3]))
        >>> bank.remember([torch.tensor([[0.0, 2.0]])], batch)
        >>> bank.rows()[3]
        tensor([0.7071, 0.7071])
    """

    embeddings: Tensor

    def __init__(self, *, samples: int, width: int, views: int = 1, decay: float = 0.5) -> None:
        super().__init__()
        if samples < 1 or not 0 <= decay <= 1:
            raise UsageError(
                f"a bank of {samples} rows with a decay of {decay}",
                where="samples, decay",
                mend="a row or more, and a decay in [0, 1]",
            )
        self.decay = decay
        entries = torch.rand(views, samples, width).mul_(2).sub_(1)  # a cancels where rows are made unit
        self.register_buffer("embeddings", unit(entries))

    def check_batch(self, batch: int) -> None:
        """Any batch will do."""

    def rows(self, view: int = 0) -> Tensor:
        """The rows of a view `[n, D]`, as they are before this step's embeddings, in place, after its gradient."""
        return self.embeddings[view]

    def places(self, batch: Batch) -> Tensor:
        """Numbers of the rows of a batch, int64 `[B]`.

        Raises:
            UsageError: A sample that has none.
        """
        largest, count = int(batch.ids.max()), self.embeddings.shape[1]
        if largest >= count:
            raise UsageError(
                f"sample {largest} has no row in a bank of {count}",
                where="samples",
                mend=f"samples={largest + 1} or more: one for each sample of the data set",
            )
        return batch.ids

    def draw(self, batch: Batch, count: int) -> Tensor:
        """Numbers of rows for each sample, uniform with replacement, int64 `[B, count]`.

        They depend on (seed, epoch, id) alone. A sample may draw its own row.
        """
        uniform = uniforms(batch.seed, batch.epoch, batch.ids.cpu(), DRAWN, count)
        drawn = (uniform * self.embeddings.shape[1]).astype("int64")
        return torch.from_numpy(drawn).to(self.embeddings.device)

    @torch.no_grad()
    def remember(self, slow: list[Tensor], batch: Batch) -> None:
        """Moves the rows of the samples of all processes towards their embeddings."""
        assert len(slow) == len(self.embeddings), (len(slow), len(self.embeddings))
        ids, order = gather(batch.ids).sort(stable=True)
        last = order[torch.cat([ids[1:] != ids[:-1], ids.new_ones(1, dtype=torch.bool)])]
        places = ids.unique_consecutive()
        for rows, embeddings in zip(self.embeddings, slow, strict=True):
            new = gather(unit(embeddings)).to(rows.dtype)[last]
            rows[places] = unit(rows[places].lerp(new, 1 - self.decay))
