"""The first part: views. `View` describes one, `Views` makes those of a method, `CentreCrop` is for evaluation."""

from __future__ import annotations

from .centre import CentreCrop as CentreCrop
from .draw import Draw as Draw
from .preview import preview_sheet as preview_sheet
from .view import View as View
from .view import Views as Views
