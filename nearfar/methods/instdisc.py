"""InstDisc: every image is a class of its own, and its own last embedding, kept in a bank, is what tells the class.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018,
https://arxiv.org/abs/1805.01978. Loss: eq. 2 (softmax), 7 (NCE), 10 (proximal). Released code:
https://github.com/zhirongw/lemniscate.pytorch.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from .. import encoders, extract, similarity
from ..bank import Bank
from ..errors import UsageError
from ..losses import NCE, attract, infonce
from ..method import Batch, Extract, Memory, Method, Pairs
from ..views import View, Views


def instdisc(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    samples: int = 1,
    width: int = 128,
    loss: Literal["nce", "softmax"] | None = None,
    negatives: int | None = None,
    temperature: float | None = None,
    decay: float = 0.5,
    proximal: float = 0.0,
) -> Method:
    """Tells an image from all others of the data set by the embedding it had when it was last seen.

        P(i | v) = exp(u_i.v / t) / sum over j of exp(u_j.v / t),    loss = -log P(i | v) + proximal * |v - u_i|^2

    v: embedding of a view of image i, u: rows of the bank, all of length 1.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        samples: Number of images in the data set, those that are held out counted in.
        width: Width of the embedding.
        loss: "softmax", as above, or "nce" with a Z that the first batch sets: of 512 toy images it had learned nothing
            after 80 epochs, softmax most. None: "nce"; below 64 px "softmax", as in the paper's CIFAR experiments.
        negatives: Rows that each image draws, >= 1. None: 4096 for "nce"; all for "softmax", the sum as it stands.
        temperature: Divides the cosine, > 0. None: 0.07; below 64 px 0.1.
        decay: Share of the bank's old row that stays, in [0, 1].
        proximal: Weight of the distance to the last embedding, >= 0; with `decay=0`, as in the paper.

    For 32 px: `encoder="resnet18"`. The paper's optimiser is SGD, `--lr 0.03 --weight-decay 1e-4`; at 32 px 0.06 (0.03
    for batches of 128) and 5e-4.
    Differs from the paper: as in its released code rows move by half and there is no proximal term. Jitter comes before
    grey.

    Relations: `cmc` has a bank for each of several views; `moco` a queue.

    The bank's rows are embeddings of the images in the order of the data set, so the paper's nearest neighbours are

        knn(model.memory.rows()[train], labels[train], embeddings, answers, k=200, temperature=0.07)

    with `nearfar.evaluation.knn`, `train` the ids that were trained on and `embeddings` those of the head.

    Example:
        >>> from nearfar import methods
        >>> method = methods.instdisc(encoder="small", size=32, samples=50_000)
        >>> method.memory.rows().shape
        torch.Size([50000, 128])
    """
    if loss not in ("nce", "softmax", None) or (negatives is not None and negatives < 1) or not proximal >= 0:
        raise UsageError(
            f"loss={loss!r}, negatives={negatives}, proximal={proximal}",
            where="instdisc",
            mend="loss nce or softmax, negatives 1 or more, proximal >= 0, or none of them",
        )
    small = size < 64
    nce = loss == "nce" or (loss is None and not small)
    rows = 4096 if nce and negatives is None else negatives
    degrees = temperature if temperature is not None else 0.1 if small else 0.07
    net = encoders.build(encoder, channels=channels, size=size)
    view = View(size=size, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, blur_p=0.0)
    contrast = NCE(temperature=degrees) if nce else partial(infonce, temperature=degrees)
    return Method(
        views=Views(view),
        encoder=net,
        extract=Extract(
            head=extract.linear(net.width, width), pair=partial(_own_row, negatives=rows, proximal=proximal)
        ),
        similarity=similarity.cosine,
        loss=(contrast, partial(attract, scale=2.0)) if proximal else contrast,
        memory=Bank(samples=samples, width=width, decay=decay),
    )


def _own_row(
    online: list[Tensor],
    slow: list[Tensor],
    batch: Batch,
    memory: Memory | None,
    *,
    negatives: int | None,
    proximal: float,
) -> list[Pairs]:
    """Each embedding among the rows, and where there is a proximal term with its own row alone."""
    found = extract.bank_rows(online, slow, batch, memory, directions=((0, 0),), negatives=negatives)
    if proximal:
        assert memory is not None
        rows, anchor = memory.rows(), online[0]
        found.append(Pairs(anchor, rows[:0], positive=rows[batch.ids], weight=proximal, gather=False))
    return found
