"""`nearfar preview`: a contact sheet of what the model will see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from ..errors import UsageError
from ..views import View, preview_sheet
from ..views.preview import Drawn
from .build import Shape, build_method, check
from .opening import read


def preview(
    data: str | Path,
    *,
    out: str | Path = "preview.png",
    images: int = 8,
    say: Callable[[str], None] = print,
    **settings: object,
) -> Path:
    """Writes the views of a few images as a picture: the original first, then each view.

    Args:
        data: Images, as for `train`.
        out: PNG file to write.
        images: Number of images.
        say: Called with messages.
        settings: Those of `train`.

    Returns:
        The file.
    """
    checked = check(settings)
    opened = read(data, checked, say)
    dataset, size = opened.dataset, opened.size
    shape = Shape.of(dataset, size=size, channels=opened.channels)
    views = build_method(checked, shape).views
    drawn = getattr(views, "views", None)
    if drawn is None or not all(isinstance(view, View) for view in drawn):
        what = f"the views of {checked.method} are no crops of images, which are what is drawn"
        raise UsageError(what, where="method", mend="a method of images, such as simclr, cpc or amdim")
    chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(np.int64)
    preview_sheet(dataset.batch(chosen, seed=checked.seed), cast(Drawn, views), Path(out))
    say(f"wrote {out}: {len(chosen)} images of {data}, views of {size} px as {checked.method} draws them")
    return Path(out)
