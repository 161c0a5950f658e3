"""The contract of every method: views, encoder, extraction, similarity, loss. Read this file first.

    batch -> views -> encoder -> extraction -> similarity -> loss

Shapes: B images, N anchors, M others, D embedding width.

Falcon & Cho, A Framework For Contrastive Self-Supervised Learning, 2020, https://arxiv.org/abs/2009.00104.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .batch import Batch as Batch
from .encoders.chunks import encode_in_chunks
from .encoders.towers import Towers, tower
from .episode import Shape
from .errors import UsageError
from .similarity import Similarity


@dataclass(frozen=True)
class Pairs:
    """Who is compared with whom. Equal keys are positives, equal slots take no part; nothing N x M is ever stored.

    Args:
        anchor: What is looked at, `[..., N, D]`. Leading dimensions are independent comparisons (episodes).
        other: Batch, bank, queue, prototypes or support set, `[..., M, D]`.
        anchor_key: int64 `[..., N]`, or None: no positive in `other`.
        other_key: int64 `[..., M]`, or None: no positive in `other`.
        positive: A positive of each anchor that is not in `other`, `[..., N, D]`, or None.
        anchor_slot: int64 `[..., N]`; where it equals `other_slot` the pair is left out (an embedding and itself).
        other_slot: int64 `[..., M]`.
        target: Share that each other should have of each anchor, `[..., N, M]`, in place of keys, where the others are
            few (classes, prototypes).
        weight: Factor of this comparison in the sum of losses.
        gather: True where `other` is this process's part of a global batch; the loss completes it from all processes.
            False where `other` is complete as it stands (queue, bank, prototypes, episode).
        other_unit: True where `other` holds unit vectors, so that a similarity need not make them so.
    """

    anchor: Tensor
    other: Tensor
    anchor_key: Tensor | None = None
    other_key: Tensor | None = None
    positive: Tensor | None = None
    anchor_slot: Tensor | None = None
    other_slot: Tensor | None = None
    target: Tensor | None = None
    weight: float = 1.0
    gather: bool = True
    other_unit: bool = False


class Memory(Protocol):
    """An `nn.Module` that keeps embeddings of earlier steps in its buffers."""

    def check_batch(self, batch: int) -> None:
        """Raises UsageError where the memory can't work with this global batch."""

    def rows(self) -> Tensor:
        """The embeddings kept, unit vectors `[K, D]`."""
        ...

    def remember(self, slow: list[Tensor], batch: Batch) -> None:
        """Takes the embeddings of a step, after it."""


@dataclass(frozen=True, kw_only=True)
class Extract:
    """The third part: what is compared.

    Args:
        head: Feature maps of one view -> embeddings `[B, D]` (or `[B, cells, D]`). A teacher has its own copy. `Towers`
            where views have heads of their own.
        pair: `(online, slow, batch, memory) -> list[Pairs]`. `online` holds the embeddings of the views that the
            trained network sees, `slow` those of the teacher, the same list where there is no teacher. An `nn.Module`
            where it has weights (predictors, prototypes); it may have `advance(progress)`, and `follow(decay)` where
            the teacher has a slow copy of its weights, both called after each step.
        views: Numbers of the views that the trained network sees; None: all.
        labels: True where pairs are made from labels.
        apart: Each view goes through the network alone, so batch norm has the statistics of one view. False: views of
            one shape go together.
    """

    head: nn.Module
    pair: Callable[[list[Tensor], list[Tensor], Batch, Memory | None], list[Pairs]]
    views: tuple[int, ...] | None = None
    labels: bool = False
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A slow copy of encoder and head: after each step `slow <- decay * slow + (1 - decay) * online`.

    Args:
        decay: In [0, 1], or a function of progress in [0, 1] (steps done over all steps).
        views: Numbers of the views that the teacher sees; None: all.
        net: Another network in place of the copy, which stays as it is: encoder and head of an earlier run.
    """

    decay: float | Callable[[float], float] = 0.999
    views: tuple[int, ...] | None = None
    net: tuple[nn.Module, nn.Module] | None = None


Loss = Callable[[Pairs, Similarity], Tensor]


@dataclass(frozen=True, kw_only=True)
class Method:
    """The five parts, and where a method has them a teacher and a memory.

    Args:
        views: `Batch -> list` of float tensors, one a view.
        encoder: View -> list of feature maps `[B, C, h, w]` or vectors `[B, C]`, deepest last. `Towers` where views
            have encoders of their own.
        extract: Embeddings and pairs.
        similarity: See `nearfar.similarity`. A tuple where a method makes several comparisons, one for each of them.
        loss: `(Pairs, Similarity) -> scalar`; an `nn.Module` where it has weights (a learned temperature). A tuple as
            above.
        teacher: Slow copy that supplies the other side, or None.
        memory: Module that keeps embeddings of earlier steps, or None.
        episode: Shape of the episodes that a batch is made of, or None: any samples.

    Example:
        >>> from dataclasses import replace
        >>> from nearfar import methods, similarity
        >>> ablation = replace(methods.simclr(encoder="small", size=28), similarity=similarity.dot)
    """

    views: Callable[[Batch], list[Tensor]]
    encoder: nn.Module
    extract: Extract
    similarity: Similarity | tuple[Similarity, ...]
    loss: Loss | tuple[Loss, ...]
    teacher: Teacher | None = None
    memory: Memory | None = None
    episode: Shape | None = None


class Contrast(nn.Module):
    """Runs a method: `forward(batch) -> loss`, then, after the optimiser's step, `after_step(progress)`.

    The module owns deep copies of the method's parts, so two runs of one method share no weights.

    Args:
        method: The five parts.
        chunk: Largest number of samples the encoder sees at once; None: the whole batch. The features of a chunk are
            computed again in the backward pass (gradient caching, Gao et al. 2021), so loss, negatives and gradient
            are those of the whole batch. Batch norm inside the encoder sees chunks, and is then no longer the same.
    """

    memory: Memory | None

    def __init__(self, method: Method, *, chunk: int | None = None) -> None:
        super().__init__()
        method = copy.deepcopy(method)
        self.views, self.chunk, self.episode = method.views, chunk, method.episode
        self.encoder, self.head = method.encoder, method.extract.head
        self.pair, self.similarity, self.loss = method.extract.pair, method.similarity, method.loss
        several = [part for part in (self.similarity, self.loss) if isinstance(part, tuple)]
        self.weighted = nn.ModuleList(term for part in several for term in part if isinstance(term, nn.Module))
        self.online_views, self.memory, self.teacher = method.extract.views, method.memory, method.teacher
        self.apart = method.extract.apart
        self.slow = nn.ModuleList()
        if method.teacher is not None:
            nets = method.teacher.net or copy.deepcopy((self.encoder, self.head))
            self.slow.extend(net.requires_grad_(False) for net in nets)
            self.train()
        self.seen: tuple[list[Tensor], list[Tensor]] | None = None  # embeddings of the last step, for monitors
        self.chance: float | None = None  # loss of embeddings that say nothing
        self._batch: Batch | None = None

    def train(self, mode: bool = True) -> Contrast:
        """A teacher that is the result of an earlier run stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None and self.teacher.net is not None:
            self.slow.eval()
        return self

    def forward(self, batch: Batch, views: list[Tensor] | None = None) -> Tensor:
        """Loss of one batch, a scalar. Encoder and head run in the ambient autocast, all after them in fp32.

        `views` are those of the batch where they are made already.
        """
        online, slow = self.embed(batch, views)
        batch = batch.to(online[0].device)
        with torch.autocast(online[0].device.type, enabled=False):
            pairs = self.pair(online, slow, batch, self.memory)
            terms = self.terms(pairs)
            losses = torch.stack([p.weight * loss(p, similarity) for p, loss, similarity in terms])
            if self.chance is None:  # after the losses: one may set its constants by the first batch (NCE)
                self.chance = sum(float(chance(*term)) for term in terms)
            self.seen = [z.detach() for z in online], [z.detach() for z in slow]
            self._batch = batch
            return losses.sum()

    def terms(self, pairs: list[Pairs]) -> list[tuple[Pairs, Loss, Similarity]]:
        """Each comparison with its own loss and similarity."""
        losses = self.loss if isinstance(self.loss, tuple) else (self.loss,) * len(pairs)
        measures = self.similarity if isinstance(self.similarity, tuple) else (self.similarity,) * len(pairs)
        if not len(pairs) == len(losses) == len(measures):
            raise UsageError(
                f"{len(pairs)} comparisons with {len(losses)} losses and {len(measures)} similarities",
                where="method",
                mend="one loss and one similarity for all, or a tuple with one for each comparison",
            )
        return list(zip(pairs, losses, measures, strict=True))

    def embed(self, batch: Batch, views: list[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Embeddings of each view from the trained network, and from the teacher (or the same again), fp32 or fp64."""
        device = next(self.encoder.parameters()).device
        views = [view.to(device, non_blocking=True) for view in views or self.views(batch)]
        online = self._encode(self.encoder, self.head, views, self.online_views)
        if self.teacher is None:
            return online, online
        with torch.no_grad():
            return online, self._encode(self.slow[0], self.slow[1], views, self.teacher.views)

    def networks(self) -> list[nn.Module]:
        """The networks that views go through, heads left out: the trained ones, then the slow ones."""
        encoders = [self.encoder, *self.slow[:1]]
        return [net for one in encoders for net in (one.nets.values() if isinstance(one, Towers) else (one,))]

    def _encode(
        self, encoder: nn.Module, head: nn.Module, views: list[Tensor], numbers: tuple[int, ...] | None
    ) -> list[Tensor]:
        """One pass for neighbouring views of one shape and network, so that batch statistics are over all of them.

        With `apart` one for each view.
        """
        embeddings: list[Tensor] = []
        chosen = [
            (views[n], tower(encoder, n), tower(head, n), n if self.apart else 0)
            for n in (range(len(views)) if numbers is None else numbers)
        ]
        for _, group in groupby(chosen, key=lambda one: (one[0].shape, id(one[1]), id(one[2]), one[3])):
            same, nets, heads, _ = zip(*group, strict=True)
            output = heads[0](encode_in_chunks(nets[0], torch.cat(same), self.chunk and self.chunk * len(same)))
            output = output if output.dtype == torch.float64 else output.float()
            embeddings += output.chunk(len(same))
        return embeddings

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Moves the teacher, fills the memory and tells what ramps (DropBlock, temperatures) how far the run is.

        Called once after each optimiser step, `progress` in [0, 1].
        """
        for part in (self.encoder, self.head, self.pair):
            if isinstance(part, nn.Module):
                advance(part, progress)
        if self.teacher is not None and self.teacher.net is None:
            decay = self.teacher.decay(progress) if callable(self.teacher.decay) else self.teacher.decay
            online: list[Tensor] = [*self.encoder.parameters(), *self.head.parameters()]
            slow: list[Tensor] = [*self.slow.parameters()]
            get_ema_multi_avg_fn(decay)(slow, online, 0)
            follow = getattr(self.pair, "follow", None)
            if follow is not None:
                follow(decay)
        if self.memory is not None and self.seen is not None and self._batch is not None:
            self.memory.remember(self.seen[1], self._batch)


def advance(part: nn.Module, progress: float) -> None:
    """Tells the layers that ramp (`advance(progress)`, as DropBlock has it) how far the run is, in [0, 1]."""
    for module in part.modules():
        ramp = getattr(module, "advance", None)
        if ramp is not None:
            ramp(progress)


@torch.no_grad()
def chance(pairs: Pairs, loss: Loss, similarity: Similarity) -> Tensor:
    """The loss of embeddings that say nothing: all scores alike, because every embedding is zero.

    Positives that have no others beside them are targets, and stay.
    """
    positive = pairs.positive
    if positive is not None and pairs.other.shape[-2]:
        positive = torch.zeros_like(positive)
    nothing = replace(
        pairs, anchor=torch.zeros_like(pairs.anchor), other=torch.zeros_like(pairs.other), positive=positive
    )
    return pairs.weight * loss(nothing, similarity)
