"""Matching networks: each support votes for its class, by its likeness with the query.

Vinyals et al., Matching Networks for One Shot Learning, NeurIPS 2016, https://arxiv.org/abs/1606.04080. Votes: eq. 1,
attention: section 2.1.1.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..episode import Shape
from ..losses import infonce
from ..method import Extract, Method
from ..views import Views, random_crop


def matching(
    *,
    encoder: str | nn.Module = "conv4",
    size: int = 84,
    channels: int = 3,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    tasks: int = 1,
    temperature: float = 0.1,
    flip: float = 0.5,
) -> Method:
    """Pulls each query to the supports of its class, most to the nearest, and pushes it from the others.

        loss_i = -log( sum over supports j of class y of a_ij ),  a_ij = softmax over all supports of cos(z_i, z_j) / t

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        ways: Classes of an episode, >= 2.
        shots: Supports of a class, >= 1.
        queries: Queries of a class, >= 1.
        tasks: Episodes in a step, over all processes.
        temperature: Divides the cosine, > 0.
        flip: Probability of mirroring; 0 where a mirrored image is another class (characters).

    Differs from the paper: no full context embeddings (the two LSTMs by which an episode's images change each
    other's embeddings). The paper's cosine has no temperature, that is 1, with which a loss of 5 ways can't fall below
    log(1 + 4 exp(-2)) = 0.43; others that train it divide by 0.01. Images are shifted and mirrored (`flip=0` and
    `--view-pad 0` leave them as they are).

    Relations: for one shot this is `protonet` with cosines.

    Example:
        >>> from nearfar import methods
        >>> method = methods.matching(encoder="small", size=32, ways=5, shots=5)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    episode = Shape(ways=ways, shots=shots, queries=queries, tasks=tasks)
    return Method(
        views=Views(random_crop(size, pad=1 / 8, flip=flip, jitter_p=0.0, grey_p=0.0, blur_p=0.0)),
        encoder=net,
        extract=Extract(
            head=extract.Head(nn.Identity()), pair=partial(extract.queries_to_supports, episode=episode), labels=True
        ),
        similarity=similarity.cosine,
        loss=partial(infonce, temperature=temperature, positives="log_sum"),
        episode=episode,
    )
