"""infoPatch: each place of a query's map must find its class among the supports, in queries mixed of two images.

Liu et al., Learning a Few-shot Embedding Model with Contrastive Learning, AAAI 2021,
https://ojs.aaai.org/index.php/AAAI/article/view/17047. Loss: eq. 1 and 3. Released code:
https://github.com/corwinliu9669/Learning-a-Few-shot-Embedding-Model-with-Contrastive-Learning.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, similarity
from ..episode import Shape
from ..errors import UsageError
from ..extract import Cells, Patches
from ..losses import infonce
from ..method import Extract, Method
from ..views import random_crop
from ..views.patchmix import MixedViews, PatchMix, RandomBlock


def infopatch(
    *,
    encoder: str | nn.Module = "resnet12-grid",
    size: int = 84,
    channels: int = 3,
    classes: int = 64,
    ways: int = 5,
    shots: int = 1,
    queries: int = 6,
    tasks: int = 4,
    preset: Literal["official", "paper"] = "official",
    level: Literal["prototype", "instance"] | None = None,
    positives: Literal["log_sum", "mean_log"] = "log_sum",
    temperature: float = 1 / 7,
    supervised: float = 1.0,
    contrast: float = 0.5,
    mix: bool = True,
    block: bool = True,
    patches: bool = True,
    flip: float = 0.5,
) -> Method:
    """Pulls each cell of a query's map to the supports of its class, each cell of every image to its class's vector.

        loss = supervised * mean over cells of -log( exp(f . w_y) / sum over classes c of exp(f . w_c) )
             + contrast * mean over query cells of
               -log( sum over supports of its class of exp(s_j / t) / sum over all supports of exp(s_j / t) ),  s cosine

    A cell inside the box of PatchMix has the class of the query that was pasted there.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module; its last map is the grid of cells.
        size: Side of a view, pixels.
        channels: Channels of an image.
        classes: Number of training classes.
        ways: Classes of an episode.
        shots: Supports of a class.
        queries: Queries of a class.
        tasks: Episodes in a step.
        preset: "official" as the released code, "paper" as the paper; see the table.
        level: What a query meets: "prototype" or "instance". None: the preset's.
        positives: "log_sum" has the supports of a class in one sum, as above; "mean_log" is SupCon's mean of logs. They
            differ at "instance" with more than one shot.
        temperature: Divides the cosine, > 0. The code multiplies by 7; the paper prints none.
        supervised: Weight of the first term, >= 0; at 0 there is none.
        contrast: Weight of the second term, >= 0; at 0 there is none.
        mix: PatchMix on the queries.
        block: A piece of the supports is blanked.
        patches: Each cell by itself; False: one vector an image, the mean of its cells.
        flip: Probability of mirroring.

                    official                                    paper
        level       the mean of each class's supports           each support
        block       one cell of the maps, the same in a step    a piece of the pixels, each image its own
        mix         one box for all queries of an episode       each query its own
        test        nearest class mean, cosine                  nearest support

    The code's recipe: SGD 0.9 with Nesterov, weight decay 5e-4; 90 epochs of 300 steps, learning rate 0.1, from epoch
    60 on 0.006, from 70 on 0.0012, from 80 on 0.00024; no warm-up.

    Differs from both: DropBlock's ramp, see there; the paper doesn't tell the size of its block, see `RandomBlock`.
    Where `views` are replaced nothing mixes the queries any more: pass `mix=False` too, or change them by `changed`.

    The published 67.67 and 82.44 (miniImageNet, 1 and 5 shots) are the best of repeated tests: the released code
    evaluates on the test classes while it trains, and prints the maximum.

    Relations: with `mix=False, block=False, patches=False, supervised=0` a prototypical network with cosine.

    Example:
        >>> from nearfar import methods
        >>> method = methods.infopatch(encoder="small", size=32, classes=64, shots=5, preset="paper")
    """
    if preset not in ("official", "paper"):
        raise UsageError(f"{preset!r} is unknown", where="preset", mend="official or paper")
    official = preset == "official"
    net = encoders.build(encoder, channels=channels, size=size)
    shape = Shape(ways=ways, shots=shots, queries=queries, tasks=tasks)
    where, per, box = ("map", "batch", "episode") if official else ("pixels", "image", "image")
    patchmix = PatchMix(shape=shape, side=size, box=box) if mix else None
    blank = RandomBlock(shape=shape, where=where, per=per) if block else None
    pair = Patches(
        shape, width=net.width, classes=classes, weights=(supervised, contrast),
        level=level or ("prototype" if official else "instance"), mix=patchmix, block=blank,
    )  # fmt: skip
    known, own = partial(infonce, temperature=1.0), partial(infonce, temperature=temperature, positives=positives)
    view = random_crop(size, pad=1 / 8 if size < 64 else 8 / 84, flip=flip)
    return Method(
        views=MixedViews(view=view, mix=patchmix, block=blank),
        encoder=net,
        extract=Extract(head=Cells(pool=not patches), pair=pair, labels=True),
        similarity=(similarity.dot,) * (supervised > 0) + (similarity.cosine,) * (contrast > 0),
        loss=(known,) * (supervised > 0) + (own,) * (contrast > 0),
        episode=shape,
    )
