"""One paper, one file. A named method is a function that composes five parts; its signature is its configuration."""

from .infopatch import infopatch as infopatch
from .matching import matching as matching
from .mgecl import mgecl as mgecl
from .moco import moco as moco
from .protonet import protonet as protonet
from .rfs import rfs as rfs
from .simclr import simclr as simclr
from .spatial import spatial as spatial
from .supcon import supcon as supcon

METHODS = {
    function.__name__: function
    for function in (simclr, moco, supcon, rfs, protonet, matching, infopatch, mgecl, spatial)
}
"""Method functions by name. Add your own: `METHODS["mine"] = mine`."""

LEARNS_FROM: dict[str, tuple[str, ...]] = {}
"""What a method looks at, where that is not images alone: sound, text, sequence, or columns, the image first."""

USUAL: dict[str, dict[str, object]] = {
    "protonet": {"optimizer": "adamw"},
    "matching": {"optimizer": "adamw"},
}
"""Settings of a training for which a method has other defaults than `TrainSettings`."""
