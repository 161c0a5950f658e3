"""The variants of each part: plain dicts, name -> `(base method, context) -> the method with this part swapped`.

Add one of your own: `VARIANTS["views"]["tiny crops"] = views(scale=(0.02, 0.1))`. A swap that makes no sense for a base
raises UsageError, which the study prints and stores; one that changes nothing gives the method itself back.

Falcon & Cho, A Framework For Contrastive Self-Supervised Learning, 2020, https://arxiv.org/abs/2009.00104.
"""

from __future__ import annotations

from .. import similarity
from ..errors import UsageError
from .swaps import (
    NO_BLUR,
    NO_CROP,
    Swap,
    cpc_v2_view,
    cpc_view,
    encoder,
    every_pair,
    last_maps,
    measure,
    moved_view,
    pipeline,
    rows_below,
    rule,
    several_maps,
    simclr_view,
    union_view,
    views,
)

VARIANTS: dict[str, dict[str, Swap]] = {
    "views": {
        "simclr": pipeline(simclr_view),
        "amdim": pipeline(moved_view),
        "cpc": pipeline(cpc_view),
        "cpc-v2": pipeline(cpc_v2_view),
        "union": pipeline(union_view),
        "no-flip": views(flip=0.0),
        "no-crop": views(**NO_CROP),
        "no-colour": views(jitter_p=0.0),
        "no-grey": views(grey_p=0.0),
        "no-blur": views(**NO_BLUR),
        "none": views(flip=0.0, jitter_p=0.0, grey_p=0.0, **NO_CROP, **NO_BLUR),
    },
    "encoder": {
        name: encoder(name)
        for name in ("small", "small-x2", "small-x3", "resnet18", "resnet34", "amdim-small", "amdim-small-x2")
    },
    "extraction": {
        "every-view": every_pair,
        "last-map": last_maps,
        "several-maps": several_maps,
        "rows-below": rows_below,
    },
    "similarity": {
        "dot": measure(lambda width: similarity.dot, unit=lambda width: width),
        "scaled-dot-clip": measure(lambda width: similarity.clipped_dot(), unit=lambda width: width**0.5),
        "cosine": measure(lambda width: similarity.cosine, unit=lambda width: 1.0),
        "bilinear": measure(similarity.Bilinear, unit=lambda width: width),
        "negative-distance": measure(lambda width: similarity.negative_distance, unit=lambda width: 2 * width),
    },
    "loss": {
        "positive-in-denominator": rule("mean_log", "all"),
        "own-and-negatives": rule("mean_log", "own_and_negatives"),
        "negatives-only": rule("mean_log", "negatives"),
        "log-of-sum": rule("log_sum", "all"),
    },
}
"""Part -> name -> swap, in the order of the tables."""


def find(part: str, variant: str) -> Swap:
    """The function of a variant; any name of an encoder is one.

    Raises:
        UsageError: There is none.
    """
    if variant in VARIANTS.get(part, {}):
        return VARIANTS[part][variant]
    if part == "encoder":
        return encoder(variant)
    raise UsageError(f"no variant {variant!r} of {part}", where="vary", mend=f"one of {', '.join(VARIANTS[part])}")
