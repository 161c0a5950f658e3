"""One paper, one file. A named method is a function that composes five parts; its signature is its configuration."""

from collections.abc import Callable

from ..method import Method
from .amdim import amdim as amdim
from .barlow_twins import barlow_twins as barlow_twins
from .byol import byol as byol
from .clip import clip as clip
from .cmc import cmc as cmc
from .cpc import cpc as cpc
from .cpc_audio import cpc_audio as cpc_audio
from .cpc_sequence import cpc_sequence as cpc_sequence
from .cpc_text import cpc_text as cpc_text
from .cpc_v2 import cpc_v2 as cpc_v2
from .dcl import dcl as dcl
from .dino import dino as dino
from .distil import distil as distil
from .finetune import finetune as finetune
from .infopatch import infopatch as infopatch
from .instdisc import instdisc as instdisc
from .invaspread import invaspread as invaspread
from .mae import mae as mae
from .matching import matching as matching
from .mgecl import mgecl as mgecl
from .moco import moco as moco
from .moco_v3 import moco_v3 as moco_v3
from .nnclr import nnclr as nnclr
from .protonet import protonet as protonet
from .rfs import rfs as rfs
from .siglip import siglip as siglip
from .simclr import simclr as simclr
from .simclr_v2 import simclr_v2 as simclr_v2
from .simsiam import simsiam as simsiam
from .spatial import spatial as spatial
from .supcon import supcon as supcon
from .swav import swav as swav
from .vicreg import vicreg as vicreg
from .yadim import yadim as yadim

METHODS: dict[str, Callable[..., Method]] = {
    function.__name__: function
    for function in (
        instdisc, invaspread, simclr, dcl, simclr_v2, supcon, moco, moco_v3, nnclr, byol, simsiam, barlow_twins,
        vicreg, swav, dino, amdim, yadim, cpc, cpc_v2, cmc, clip, siglip, cpc_audio, cpc_text, cpc_sequence, rfs,
        protonet, matching, infopatch, mgecl, spatial, finetune, distil, mae,
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
    "instdisc": {"lr": 0.06},
    "invaspread": {"lr": 0.06},
    "barlow_twins": {"optimizer": "lars", "weight_decay": 1e-6},
    "vicreg": {"optimizer": "lars", "weight_decay": 1e-6},
    "dino": {"optimizer": "adamw", "lr": 0.0005, "weight_decay": 0.04, "final_decay": 0.4, "clip": 3.0},
    "mae": {"encoder": "vit-mini", "optimizer": "adamw", "lr": 0.008, "batch": 64, "weight_decay": 0.05},
    "simsiam": {"lr": 0.05},
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
    "finetune": {"weight_decay": 0.0, "warmup_epochs": 0.0, "epochs": 60},
}
"""Settings for which a method has other defaults than `TrainSettings`; encoders and batches that a CPU can train."""
