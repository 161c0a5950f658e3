"""What each method meets the contract with: a toy set, keyword arguments that fit it, the features it is judged by.

A method of your own is held to the contract by `METHODS["mine"] = mine`; it gets striped images of 16 px. Where its
defaults don't fit those, it has an entry in SETTINGS; where it learns from something else, in TOYS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from toy import SIDE, Tiny, plain_stripes, stripes
from toy_pairs import LENGTH as CAPTION
from toy_pairs import toy_pairs
from toy_patches import PATCH, textures
from toy_sequences import WIDTH, toy_sequences
from toy_sounds import RATE, WINDOW, toy_ears, toy_sounds
from toy_text import LENGTH as SENTENCE
from toy_text import SENTENCES, toy_text

from nearfar import encoders
from nearfar.data import Dataset
from nearfar.data.tokens import Tokenizer
from nearfar.encoders import Towers
from nearfar.encoders.recurrent import Recurrent
from nearfar.encoders.sentence import SentenceCells
from nearfar.encoders.text_transformer import TextTransformer
from nearfar.encoders.vit import ViT
from nearfar.method import Batch, Contrast, Method
from nearfar.methods import METHODS
from nearfar.views import CentreCrop
from nearfar.views.sequences import Steps
from nearfar.views.sound import Waveform
from nearfar.views.text import Sentences

EPISODES = {"ways": 4, "shots": 1, "queries": 1, "tasks": 8}


class Slopes(nn.Module):
    """A teacher that was never trained: mean slope of an image along x, y and both diagonals, `[B, 4, 1, 1]`."""

    def forward(self, view: Tensor) -> list[Tensor]:
        steps = (view.diff(dim=3), view.diff(dim=2), view[..., 1:, 1:] - view[..., :-1, :-1],
                 view[..., 1:, :-1] - view[..., :-1, 1:])  # fmt: skip
        slopes = torch.stack([step.abs().mean(dim=(1, 2, 3)) for step in steps], dim=1)
        return [(slopes / slopes.sum(dim=1, keepdim=True))[..., None, None]]


class SlopesToStripes(nn.Module):
    """Scores of the four classes: upright has no slope along y, level none along x, slanting none along a diagonal."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        x, y, down, up = maps[-1].flatten(1).unbind(1)
        return -40 * torch.stack([y, x, torch.full_like(x, 0.17), torch.minimum(down, up)], dim=1)


SETTINGS: dict[str, dict[str, Any]] = {
    "instdisc": {"samples": 512, "temperature": 0.07},
    "simclr": {"hidden": (32,), "width": 16, "temperature": 0.2},
    "dcl": {"hidden": (32,), "width": 16, "temperature": 0.2},
    "supcon": {"hidden": (32,), "width": 16},
    "moco": {"queue": 64, "decay": 0.8, "groups": 1},
    "moco_v3": {"hidden": 64, "width": 32, "temperature": 0.2, "decay": 0.9},
    "nnclr": {"hidden": 64, "predictor": 64, "width": 32, "queue": 128, "temperature": 0.2},
    "simsiam": {"layers": 2, "width": 64, "bottleneck": 32},
    "byol": {"hidden": 64, "width": 32, "decay": 0.9},
    "swav": {
        "crops": 1,
        "small": 12,
        "hidden": 64,
        "width": 32,
        "prototypes": 32,
        "temperature": 0.2,
        "epsilon": 0.03,
        "queue": 64,
        "wait": 0.5,
        "freeze": 0.0,
    },
    "dino": {
        "crops": 1,
        "small": 12,
        "hidden": 64,
        "width": 32,
        "norm": True,
        "prototypes": 64,
        "target_temperature": 0.04,
        "decay": 0.9,
        "freeze": 0.0,
    },
    "barlow_twins": {"hidden": (128,), "width": 256, "redundancy": 0.01},
    "vicreg": {"hidden": (128,), "width": 128},
    "amdim": {"scales": (4,)},
    "yadim": {"pool": True, "width": 16},
    "cpc": {"hidden": 32},
    "cpc_v2": {"hidden": 32, "temperature": 1.0},
    "simclr_v2": {"width": 16, "temperature": 0.2},
    "rfs": {"classes": 4},
    "finetune": {"classes": 4},
    "distil": {"classes": 4, "teacher": (Slopes(), SlopesToStripes())},
    "protonet": EPISODES,
    "matching": EPISODES,
    "infopatch": {"classes": 4, **EPISODES},
    "mgecl": EPISODES,
    "spatial": {"classes": 4, "width": 8},
}
"""Keyword arguments that fit 512 images of 16 px."""

EPOCHS = {
    "moco": 60, "mae": 40, "instdisc": 80, "barlow_twins": 80, "vicreg": 40, "cmc": 40, "cpc": 100, "cpc_v2": 60,
    "dino": 60,
}  # fmt: skip
"""Epochs in which a method learns the toy; 20 where it isn't here. Queue and bank are slow to fill with good keys."""

PLAIN = {"byol", "simsiam", "moco_v3", "nnclr", "swav", "dino"}
"""Methods that meet plain stripes in place of coloured ones, whose colours are enough for them."""

SLOW = {"amdim", "spatial", "cmc", "cpc", "cpc_v2", "cpc_audio", "cpc_text", "cpc_sequence"}
"""Methods whose long tests run with the slow ones."""


def image_method(name: str, encoder: object, settings: dict[str, Any]) -> Method:
    """A method of images with views that suit the toy set."""
    method = METHODS[name](encoder=encoder, size=SIDE, **{**SETTINGS.get(name, {}), **settings})
    colours = {"jitter": (0.4, 0.4, 0.4, 0.3), "jitter_p": 0.8, "grey_p": 0.3}
    views = method.views.changed(scale=(0.4, 1.0), ratio=(3 / 4, 4 / 3), pad=0.0, blur_p=0.0, flip=0.5, **colours)
    return replace(method, views=views)


@dataclass(frozen=True)
class Toy:
    """A toy set of `count` samples in four classes, and how a method meets it.

    Args:
        data: `(count, seed=) -> Dataset`.
        method: `(batch_norm, settings) -> Method`.
        transform: Inputs and sizes -> view, for evaluation.
        peak: Learning rate.
    """

    data: Callable[..., Dataset]
    method: Callable[[bool, dict[str, Any]], Method]
    transform: Callable[..., Tensor]
    peak: float = 0.003


def light_and_colour(batch_norm: bool, settings: dict[str, Any]) -> Method:
    towers = Towers(L=Tiny(1, batch_norm=batch_norm), ab=Tiny(2, batch_norm=batch_norm))
    given = {"samples": 512, "loss": "softmax", "negatives": None, "temperature": 0.1}
    return image_method("cmc", towers, given | settings)


def patches(batch_norm: bool, settings: dict[str, Any]) -> Method:
    net = ViT(32, 2, 2, channels=3, size=SIDE, patch=PATCH)
    method = METHODS["mae"](**{"encoder": net, "size": SIDE, "layers": 1, "width": 32} | settings)
    return replace(method, views=method.views.changed(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0))


def captioned(name: str) -> Toy:
    def build(batch_norm: bool, settings: dict[str, Any]) -> Method:
        text = TextTransformer(vocabulary=257, length=CAPTION, width=32, layers=2, heads=2)
        given = {"encoder": Tiny(batch_norm=batch_norm), "size": SIDE, "text": text, "width": 32}
        return METHODS[name](**given | settings)

    return Toy(toy_pairs, build, CentreCrop(SIDE))


def sound(batch_norm: bool, settings: dict[str, Any]) -> Method:
    return METHODS["cpc_audio"](**{"encoder": toy_ears(), "size": WINDOW, "steps": 4} | settings)


def sentences(batch_norm: bool, settings: dict[str, Any]) -> Method:
    cells = SentenceCells(vocabulary=257, width=16, embedding=16, kernel=3)
    given = {"encoder": Recurrent(cells, width=16, context=24), "size": SENTENCE, "sentences": SENTENCES, "steps": 2}
    return METHODS["cpc_text"](**given | settings)


def steps(batch_norm: bool, settings: dict[str, Any]) -> Method:
    given = {"channels": WIDTH, "size": 16, "steps": 3, "width": 16, "context": 32}
    return METHODS["cpc_sequence"](**given | settings)


TOYS = {
    "cmc": Toy(stripes, light_and_colour, CentreCrop(SIDE, mean=(0.0,) * 3, std=(1.0,) * 3), peak=0.005),
    "mae": Toy(textures, patches, CentreCrop(SIDE)),
    "clip": captioned("clip"),
    "siglip": captioned("siglip"),
    "cpc_audio": Toy(toy_sounds, sound, Waveform(RATE)),
    "cpc_text": Toy(toy_text, sentences, Sentences(Tokenizer().to_dict(), SENTENCE), peak=0.01),
    "cpc_sequence": Toy(toy_sequences, steps, Steps(), peak=0.02),
}
"""Of the methods that learn from something else than images, or have an encoder for each view."""


def toy_of(name: str) -> Toy:
    """The toy of a method; striped images where it has none of its own."""
    images = Toy(
        plain_stripes if name in PLAIN else stripes,
        lambda norm, settings: image_method(name, Tiny(batch_norm=norm), settings),
        CentreCrop(SIDE),
    )
    return TOYS.get(name, images)


def toy_method(name: str, *, encoder: object = None, batch_norm: bool = False, **settings: object) -> Method:
    """A method that fits its toy."""
    if encoder is not None:
        return image_method(name, encoder, settings)
    return toy_of(name).method(batch_norm, settings)


def toy_batch(count: int = 16, *, start: int = 0, epoch: int = 0, name: str = "simclr") -> Batch:
    return toy_of(name).data(128).batch(np.arange(start, start + count), seed=1, epoch=epoch)


def double(model: Contrast) -> Contrast:
    """In fp64, views too, so that sums in another order differ by rounding only."""
    model = model.double()
    views = model.views
    model.views = lambda batch: [v.double() if v.is_floating_point() else v for v in views(batch)]
    return model


@torch.no_grad()
def features(model: Contrast, data: Dataset, name: str) -> Tensor:
    """The representation of each sample, from the first network where there are several."""
    net, split = model.encoder, getattr(model.views, "split", None)
    batch = data.batch(np.arange(len(data)))
    view = toy_of(name).transform(batch.inputs, batch.sizes)
    if isinstance(net, encoders.Towers) and split is None:
        net = net[net.names[0]]
    model.eval()
    found = encoders.pooled(net(view if split is None else split(view)))
    model.train()
    return found
