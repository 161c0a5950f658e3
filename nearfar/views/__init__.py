"""The first part: views. `View` describes one, `Views` makes those of a method, `CentreCrop` is for evaluation."""

from __future__ import annotations

from .centre import CentreCrop as CentreCrop
from .draw import Draw as Draw
from .episodic import SupportViews as SupportViews
from .patchmix import MixedViews as MixedViews
from .patchmix import PatchMix as PatchMix
from .patchmix import RandomBlock as RandomBlock
from .preview import preview_sheet as preview_sheet
from .turns import Turns as Turns
from .view import View as View
from .view import Views as Views
from .view import random_crop as random_crop
