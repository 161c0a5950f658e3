"""One paper, one file. A named method is a function that composes five parts; its signature is its configuration."""

from .moco import moco as moco
from .simclr import simclr as simclr
from .supcon import supcon as supcon

METHODS = {function.__name__: function for function in (simclr, moco, supcon)}
"""Method functions by name. Add your own: `METHODS["mine"] = mine`."""
