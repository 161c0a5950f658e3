"""One paper, one file. A named method is a function that composes five parts; its signature is its configuration."""

from .amdim import amdim as amdim
from .clip import clip as clip
from .cmc import cmc as cmc
from .cpc import cpc as cpc
from .cpc_audio import cpc_audio as cpc_audio
from .cpc_sequence import cpc_sequence as cpc_sequence
from .cpc_text import cpc_text as cpc_text
from .cpc_v2 import cpc_v2 as cpc_v2
from .infopatch import infopatch as infopatch
from .matching import matching as matching
from .mgecl import mgecl as mgecl
from .moco import moco as moco
from .protonet import protonet as protonet
from .rfs import rfs as rfs
from .siglip import siglip as siglip
from .simclr import simclr as simclr
from .spatial import spatial as spatial
from .supcon import supcon as supcon
from .yadim import yadim as yadim

METHODS = {
    function.__name__: function
    for function in (
        simclr, moco, supcon, amdim, yadim, cpc, cpc_v2, cmc, clip, siglip, cpc_audio, cpc_text, cpc_sequence,
        rfs, protonet, matching, infopatch, mgecl, spatial,
    )
}  # fmt: skip
"""Method functions by name. Add your own: `METHODS["mine"] = mine`."""

LEARNS_FROM: dict[str, tuple[str, ...]] = {
    "clip": ("image", "text"),
    "siglip": ("image", "text"),
    "cpc_audio": ("sound",),
    "cpc_text": ("text",),
    "cpc_sequence": ("sequence",),
}
"""What a method looks at, where that is not images alone: sound, text, sequence, or columns, the image first."""

USUAL: dict[str, dict[str, object]] = {
    "protonet": {"optimizer": "adamw"},
    "matching": {"optimizer": "adamw"},
    "amdim": {"encoder": "amdim-small", "optimizer": "adamw", "lr": 0.00025},
    "yadim": {"encoder": "amdim-small", "optimizer": "adamw", "lr": 0.00025},
    "cpc": {"optimizer": "adamw", "lr": 0.0004, "batch": 64},
    "cpc_v2": {"optimizer": "adamw", "lr": 0.0004, "batch": 64},
    "clip": {"optimizer": "adamw"},
    "siglip": {"optimizer": "adamw"},
    "cpc_audio": {"encoder": "sound-small", "optimizer": "adamw", "batch": 64},
    "cpc_text": {"encoder": "sentence-small", "optimizer": "adamw"},
    "cpc_sequence": {"encoder": "gru", "optimizer": "adamw", "batch": 32},
}
"""Settings for which a method has other defaults than `TrainSettings`; encoders and batches that a CPU can train."""
