"""ProtoNet: a query belongs to the class whose supports have the nearest mean.

Snell et al., Prototypical Networks for Few-shot Learning, NeurIPS 2017, https://arxiv.org/abs/1703.05175. Prototypes:
eq. 1; loss: eq. 2.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, extract, similarity
from ..episode import Shape
from ..losses import infonce
from ..method import Extract, Method
from ..views import Views, random_crop


def protonet(
    *,
    encoder: str | nn.Module = "conv4",
    size: int = 84,
    channels: int = 3,
    ways: int = 30,
    shots: int = 1,
    queries: int = 15,
    tasks: int = 1,
    distance: Literal["euclidean", "cosine"] = "euclidean",
    temperature: float | None = None,
    flip: float = 0.5,
) -> Method:
    """Pulls each query to the mean of its class's supports, pushes it from those of the episode's other classes.

        loss_i = -log( exp(-|z_i - w_y|^2 / t) / sum over classes c of exp(-|z_i - w_c|^2 / t) ),  w_c mean support

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        ways: Classes of an episode, >= 2. More than there will be in use make better embeddings: the paper has 30
            for 1 shot, 20 for 5 shots, 60 for Omniglot.
        shots: Supports of a class, >= 1, as many as there will be in use.
        queries: Queries of a class, >= 1; 5 for Omniglot.
        tasks: Episodes in a step, over all processes.
        distance: "euclidean" squared; "cosine" in place of minus the distance.
        temperature: Divides the score, > 0. None: 1, as in the paper; for cosines, which lie in [-1, 1], 0.1.
        flip: Probability of mirroring; 0 where a mirrored image is another class (characters).

    The paper's recipe: Adam at 1e-3, `--optimizer adamw --lr 0.001 --weight-decay 0`. SGD at a rate that suits
    cosines is too hot for squared distances.

    Differs from the paper: images are shifted and mirrored (`flip=0` and `--view-pad 0` leave them as they are); its
    cosine has no temperature.

    Relations: `matching` compares with every support, which for one shot is the same; `mgecl` asks for a margin.

    Example:
        >>> from nearfar import methods
        >>> method = methods.protonet(size=28, channels=1, ways=60, shots=5, queries=5, flip=0.0)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    episode = Shape(ways=ways, shots=shots, queries=queries, tasks=tasks)
    default = 1.0 if distance == "euclidean" else 0.1
    return Method(
        views=Views(random_crop(size, pad=1 / 8, flip=flip, jitter_p=0.0, grey_p=0.0, blur_p=0.0)),
        encoder=net,
        extract=Extract(
            head=extract.Head(nn.Identity()), pair=partial(extract.queries_to_means, episode=episode), labels=True
        ),
        similarity=similarity.negative_distance if distance == "euclidean" else similarity.cosine,
        loss=partial(infonce, temperature=default if temperature is None else temperature),
        episode=episode,
    )
