"""MGECL: multi-granularity episodic contrastive learning, which refines a trained encoder in episodes.

Zhu et al., Multi-granularity episodic contrastive learning for few-shot learning, Pattern Recognition 131, 2022,
https://doi.org/10.1016/j.patcog.2022.108820. Specified here from notes on the paper; its losses were not released.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..episode import Shape
from ..errors import UsageError
from ..losses import hinge, infonce
from ..method import Extract, Method
from ..views import SupportViews, View, Views, random_crop


def mgecl(
    *,
    encoder: str | nn.Module = "resnet12",
    size: int = 84,
    channels: int = 3,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    tasks: int = 1,
    margin: float = 0.5,
    temperature: float = 0.1,
    class_weight: float = 1.0,
    instance_weight: float = 1.0,
    views: int = 1,
    renormalise: bool = False,
    shots_as_negatives: bool = True,
    itself: bool = False,
    flip: float = 0.5,
) -> Method:
    """Queries come nearer to their class's mean than to any other by a margin; supports are told from one another.

        class     loss_i = sum over classes c != y of max(0, z_i.w_c - z_i.w_y + margin)                 i a query
        instance  loss_i = mean over j in I+ of -log( exp(z_i.z_j / t) / sum over I+ and I- of exp(z_i.z_k / t) )
                                                                                                         i a support

    z unit embeddings, w_c the mean of the supports of class c, I+ other views of the same image, I- all other supports
    and their views; the sum of both means.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        ways: Classes of an episode, >= 2.
        shots: Supports of a class, >= 1.
        queries: Queries of a class, >= 1.
        tasks: Episodes in a step, over all processes.
        margin: In units of the cosine, >= 0.
        temperature: Divides the cosine of the instance term, > 0; 1.0 for FC100.
        class_weight: Of the class term, >= 0; 0 leaves it out.
        instance_weight: Of the instance term (lambda), >= 0; 0 leaves it out, and with it the further views.
        views: Further views of each support, >= 1.
        renormalise: Whether class means are scaled to length 1.
        shots_as_negatives: Whether other supports of the same class are in I-; else they take no part. As negatives
            they are pushed apart, while the class term pulls them together.
        itself: Whether a support is in its own I+, as the notes say: it adds exp(1 / t) to the sum and no gradient.
        flip: Probability of mirroring; 0 where a mirrored image is another class.

    It is the second stage: `--init` an encoder trained by classification (`rfs`). The notes give SGD 0.9 at 5e-4 and
    weight decay 5e-4; for the 80 images of one episode that is `--lr 0.0016` (told for 256).

    Differs from the paper, or can't be compared: the margin, the number of views, tasks and the views' settings are our
    choices, since the notes don't tell them; nor whether the instance term is a mean over supports, as it is here. The
    sign of the class term is corrected: the notes' sketch adds the right class's score. With batch norm, further views
    are a pass of their own, with statistics of their own.

    Relations: `protonet` has a softmax in place of the margin; the instance term is `simclr`'s within an episode.

    Example:
        >>> from nearfar import methods
        >>> class_only = methods.mgecl(encoder="small", size=32, shots=5, instance_weight=0.0)
    """
    if not (class_weight >= 0 and instance_weight >= 0 and class_weight + instance_weight > 0 and views >= 1):
        raise UsageError(
            f"class_weight={class_weight}, instance_weight={instance_weight}, views={views}",
            where="mgecl",
            mend="weights >= 0, one of them > 0, and 1 or more views",
        )
    net = encoders.build(encoder, channels=channels, size=size)
    episode = Shape(ways=ways, shots=shots, queries=queries, tasks=tasks)
    plain = random_crop(size, pad=1 / 8, flip=flip, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    further = View(size=size, scale=(0.2, 1.0), flip=flip, jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.0)
    terms = [
        (class_weight, similarity.cosine if renormalise else similarity.dot, partial(hinge, margin=margin)),
        (instance_weight, similarity.cosine, partial(infonce, temperature=temperature)),
    ]
    pair = partial(
        extract.class_and_instance,
        episode=episode,
        weights=(class_weight, instance_weight),
        shots_as_negatives=shots_as_negatives,
        itself=itself,
    )
    return Method(
        views=SupportViews(episode=episode, every=plain, supports=(further,) * views)
        if instance_weight
        else Views(plain),
        encoder=net,
        extract=Extract(head=extract.Head(nn.Identity()), pair=pair, labels=True),
        similarity=tuple(measure for weight, measure, _ in terms if weight),
        loss=tuple(loss for weight, _, loss in terms if weight),
        episode=episode,
    )
