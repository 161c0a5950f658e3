"""The first part: views. `View` describes one, `Views` makes those of a method, `CentreCrop` is for evaluation."""

from __future__ import annotations

from .captioned import Captioned as Captioned
from .centre import CentreCrop as CentreCrop
from .channels import LightAndColour as LightAndColour
from .columns import ColumnViews as ColumnViews
from .draw import Draw as Draw
from .episodic import SupportViews as SupportViews
from .masked import Masked as Masked
from .masked import hidden_patches as hidden_patches
from .patch_views import PatchViews as PatchViews
from .patchmix import MixedViews as MixedViews
from .patchmix import PatchMix as PatchMix
from .patchmix import RandomBlock as RandomBlock
from .preview import preview_sheet as preview_sheet
from .recipes import asymmetric as asymmetric
from .recipes import multi_crop as multi_crop
from .sequences import Windows as Windows
from .shared import SharedFlip as SharedFlip
from .sound import SoundWindows as SoundWindows
from .text import sentences as sentences
from .turns import Turns as Turns
from .view import View as View
from .view import Views as Views
from .view import random_crop as random_crop
