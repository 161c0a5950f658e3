"""Views that several methods share."""

from __future__ import annotations

from ..errors import UsageError
from .view import View, Views

SMALLEST_CROP = 0.05
"""Share of the image's area in the smallest of the small crops."""


def asymmetric(size: int, *, least: float = 0.08) -> Views:
    """BYOL's two kinds of views: one is always blurred, the other seldom, and that one may be solarised.

    Both: crop, mirror, jitter 0.4, 0.4, 0.2, 0.1 with probability 0.8, grey 0.2. Blur 1 and 0.1, solarise 0 and 0.2.
    Below 64 px there is no blur.

    Args:
        size: Side of a view, pixels.
        least: Smallest share of the image's area in the crop, in (0, 1].

    Differs from the paper: brightness is multiplied, not added; views are resampled bilinearly.

    Source: Grill et al. 2020, appendix B, table 6, https://arxiv.org/abs/2006.07733.

    Example:
        >>> [view.solarise_p for view in asymmetric(224).views]
        [0.0, 0.2]
    """
    blur = (1.0, 0.1) if size >= 64 else (0.0, 0.0)
    first, second = (
        View(size=size, scale=(least, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur_p=blur_p, solarise_p=solarise_p)
        for blur_p, solarise_p in zip(blur, (0.0, 0.2), strict=True)
    )
    return Views(first, second)


def multi_crop(
    size: int,
    *,
    crops: int,
    small: int | None = None,
    multiple: int = 1,
    least: float = 0.14,
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2),
    blur: tuple[float, float, float] = (0.5, 0.5, 0.5),
    solarise: float = 0.0,
) -> Views:
    """Two large views of most of the image, then many small ones of parts of it, which cost little.

    All: crop, mirror, jitter with probability 0.8, grey 0.2, blur, solarise. Below 64 px there is no blur.

    Args:
        size: Side of the two large views, pixels.
        crops: Number of small views, >= 0.
        small: Their side, pixels. None: 3/7 of `size` (96 for 224), half of it below 64 px, to the nearest multiple.
        multiple: What their side has to be a multiple of: the patch of a vision transformer.
        least: Smallest share of the image's area in a large crop, and largest in a small one, in [0.05, 1].
        jitter: Half-ranges, as in `View`.
        blur: Probability of the blur in the first, the second and the small views.
        solarise: Probability that the second view is solarised.

    Raises:
        UsageError: A value out of its range.

    Differs from the paper: views are resampled bilinearly.

    Sources: Caron et al. 2020 (SwAV), section 3.3, https://arxiv.org/abs/2006.09882; Caron et al. 2021 (DINO), section
    3.1, https://arxiv.org/abs/2104.14294.

    Example:
        >>> [(view.size, view.scale) for view in multi_crop(224, crops=6).views][1:3]
        [(224, (0.14, 1.0)), (96, (0.05, 0.14))]
    """
    if crops < 0 or not SMALLEST_CROP <= least <= 1:
        raise UsageError(
            f"{crops} small crops of at most {least} of the image",
            where="crops, least",
            mend=f"no small crops or some, and a share from {SMALLEST_CROP} to 1",
        )
    usual = max(round(size * (3 / 7 if size >= 64 else 1 / 2) / multiple), 1) * multiple
    side = usual if small is None else small
    if side % multiple:
        raise UsageError(
            f"small crops of {side} px for patches of {multiple} px", where="small", mend=f"--small {usual}"
        )
    first, second, part = (
        View(size=pixels, scale=scale, jitter=jitter, blur_p=p if size >= 64 else 0.0, solarise_p=inverted)
        for pixels, scale, p, inverted in (
            (size, (least, 1.0), blur[0], 0.0),
            (size, (least, 1.0), blur[1], solarise),
            (side, (SMALLEST_CROP, least), blur[2], 0.0),
        )
    )
    return Views(first, second, *[part] * crops)
