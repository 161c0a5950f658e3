"""How one part of a method is swapped: each function gives `(base method, context) -> the method with it swapped`.

A swap that makes no sense for a base raises UsageError; one that changes nothing gives the method itself back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from ..encoders.causal import Causal
from ..encoders.patches import PatchGrid
from ..errors import UsageError
from ..extract import every_view, mlp
from ..extract.predict import GridContexts, Predict
from ..extract.scales import LastMap, Scales, across_scales, across_views, map_shapes
from ..method import Extract, Method
from ..methods.amdim import amdim_view
from ..methods.cpc import cpc
from ..methods.cpc_v2 import cpc_v2
from ..methods.simclr import simclr
from ..similarity import Similarity
from ..views import View, Views
from .context import Context, keyword, most_positives, width, with_keywords

Swap = Callable[[Method, Context], Method]

# Views ---------------------------------------------------------------------------------------------------------------

NO_CROP = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "pad": 0.0}
NO_BLUR = {"blur_p": 0.0, "solarise_p": 0.0}
KEPT = {"size", "mean", "std"}
"""Fields of a view that a pipeline of another method leaves alone."""


def views(**changes: Any) -> Swap:
    """Other fields of every view; how many there are, and what they share, stays."""
    return lambda method, context: _with_views(method, changes)


def pipeline(view: Callable[[Context], View]) -> Swap:
    """Everything that another method does to a view, but for its size and normalisation."""

    def swap(method: Method, context: Context) -> Method:
        other = view(context)
        return _with_views(method, {f.name: getattr(other, f.name) for f in fields(other) if f.name not in KEPT})

    return swap


def _with_views(method: Method, changes: dict[str, Any]) -> Method:
    change = getattr(method.views, "changed", None)
    if change is None:
        raise UsageError("its views are its own and have no fields to change", where="views")
    changed = change(**changes)
    if isinstance(changed, Views):  # small crops too, which `changed` lets keep their scale
        changed = Views(*(replace(view, **changes) for view in changed.views))
    return method if changed == method.views else replace(method, views=changed)


def _first_view(method: Method) -> View:
    return method.views.views[0]  # pyright: ignore[reportFunctionMemberAccess]


def moved_view(context: Context) -> View:
    """AMDIM's view, mirrored with a probability of a half."""
    return amdim_view(context.size, flip=0.5)


def simclr_view(context: Context) -> View:
    """SimCLR's view at strength 0.5, without blur below 64 pixels."""
    return _first_view(simclr(encoder="small", size=context.size, channels=context.channels, strength=0.5))


def cpc_view(context: Context) -> View:
    """CPC's view, before it is cut into patches; grey, as its encoder makes it."""
    view = _first_view(cpc(encoder="small", size=context.size, channels=context.channels, hidden=8))
    return replace(view, grey_p=1.0 if context.channels == 3 else 0.0)


def cpc_v2_view(context: Context) -> View:
    """CPC v2's view; its colours are those of patches, here of the whole."""
    return _first_view(cpc_v2(encoder="small", size=context.size, channels=context.channels, hidden=8))


def union_view(context: Context) -> View:
    """All that AMDIM's and SimCLR's views do: the smaller crops, the margin, the stronger colours, the blur."""
    one, two = moved_view(context), simclr_view(context)
    jitter = [max(pair) for pair in zip(one.jitter, two.jitter, strict=True)]
    return replace(
        two,
        pad=one.pad,
        reflect=one.reflect,
        jitter=(jitter[0], jitter[1], jitter[2], jitter[3]),
        jitter_p=max(one.jitter_p, two.jitter_p),
        grey_p=max(one.grey_p, two.grey_p),
    )


# Encoder -------------------------------------------------------------------------------------------------------------


def encoder(name: str) -> Swap:
    """The base with another network; its head follows the network's width."""
    return lambda method, context: method if context.encoder == name else context.build(name)


# Extraction ----------------------------------------------------------------------------------------------------------


def every_pair(method: Method, context: Context) -> Method:
    """SimCLR: one vector a view through a hidden layer; every view of the batch is compared with every other."""
    if method.extract.pair is every_view:
        return method
    _check_free(method, context, least=2)
    before, after = _channels(method, context), width(method, context.batch)
    return replace(method, extract=Extract(head=mlp(before, before, after, norm=True, last="scale"), pair=every_view))


def last_maps(method: Method, context: Context) -> Method:
    """YADIM: the last map of a view finds that of the other."""
    if method.extract.pair is across_views:
        return method
    _check_free(method, context, least=2)
    head = LastMap(_channels(method, context), width=width(method, context.batch))
    return replace(method, extract=Extract(head=head, pair=across_views))


def several_maps(method: Method, context: Context) -> Method:
    """AMDIM: the vector of a view finds the cells of two maps of the other, and a cell those of its own map."""
    if getattr(method.extract.pair, "func", None) is across_scales:
        return method
    _check_free(method, context, least=2)
    head = Scales(method.encoder, channels=context.channels, size=context.size, width=width(method, context.batch))
    return replace(method, extract=Extract(head=head, pair=partial(across_scales, cells=head.cells)))


def rows_below(method: Method, context: Context) -> Method:
    """CPC: rows of the last map are predicted from those above, in the first view alone.

    Where cells overlap, and in a network that sees the whole view they do, the next row gives itself away in part.
    """
    if isinstance(method.extract.pair, Predict):
        return method
    _check_free(method, context, least=1)
    shape, net = _last_map(method, context), method.encoder
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 2:
        raise UsageError(f"the encoder ends in {list(shape)}: there are no rows to predict", where="encoder")
    channels, rows, first = shape[0], shape[1], -(-net.patch // net.stride) if isinstance(net, PatchGrid) else 1
    last = min(first + 4, rows - 1)
    head = GridContexts([Causal(channels, hidden=min(channels, 256))])
    pair = Predict(width=channels, context=channels, steps=last, first=first, grid=(rows, rows))
    return replace(method, extract=Extract(head=head, pair=pair, views=(0,)))


def _check_free(method: Method, context: Context, *, least: int) -> None:
    """UsageError where what is compared is bound to more than extraction."""
    if method.teacher is not None or method.memory is not None or method.episode is not None:
        bound = "a teacher" if method.teacher else "a memory" if method.memory else "episodes"
        raise UsageError(f"its extraction is bound to {bound}", where="extraction")
    if isinstance(method.similarity, tuple) or isinstance(method.loss, tuple):
        raise UsageError("each of its comparisons has a similarity and a loss of its own", where="extraction")
    found = len(method.views(context.batch))
    if found < least:
        raise UsageError(f"two views are compared and the base has {found}", where="views")


def _last_map(method: Method, context: Context) -> tuple[int, ...]:
    """Shape of the last map for an image, `(C, h, w)` or `(C,)`."""
    return tuple(map_shapes(method.encoder, channels=context.channels, size=context.size)[-1])


def _channels(method: Method, context: Context) -> int:
    shape = _last_map(method, context)
    return shape[1] if len(shape) == 2 else shape[0]


# Similarity ----------------------------------------------------------------------------------------------------------


def measure(make: Callable[[int], Similarity], *, unit: Callable[[int], float]) -> Swap:
    """Another similarity, with a temperature of its own. Beside that the loss loses AMDIM's penalty on large scores.

    The penalty is in the units of one similarity, and would weigh more or less with another.

    Args:
        make: Width of an embedding -> similarity.
        unit: Width -> how much larger than cosines the scores of normed embeddings are; temperatures are in this unit.
    """

    def swap(method: Method, context: Context) -> Method:
        if isinstance(method.similarity, tuple):
            raise UsageError("each of its comparisons has a similarity of its own", where="similarity")
        wide = width(method, context.batch)
        loss = with_keywords(method.loss, temperature=context.temperature * unit(wide))
        if "penalty" in loss.keywords:
            loss = with_keywords(loss, penalty=0.0)
        return replace(method, similarity=make(wide), loss=loss)

    return swap


# Loss ----------------------------------------------------------------------------------------------------------------


def rule(positives: str, denominator: str) -> Swap:
    """InfoNCE with another treatment of positives; see `losses.infonce`.

    Where each anchor has one positive, its share is the same in either form, and that of all is that of its own.
    """

    def swap(method: Method, context: Context) -> Method:
        now = (keyword(method.loss, "positives"), keyword(method.loss, "denominator"))
        single = most_positives(method, context.batch) < 2
        if _plain(*now, single) == _plain(positives, denominator, single):
            return method
        return replace(method, loss=with_keywords(method.loss, positives=positives, denominator=denominator))

    return swap


def _plain(positives: str, denominator: str, single: bool) -> tuple[str, str]:
    """The simplest name of a rule."""
    if not single:
        return positives, denominator
    return "mean_log", "negatives" if denominator == "negatives" else "all"
