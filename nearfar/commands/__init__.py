"""The commands, one function each: those of `nearfar.tasks`, under the same names. Torch is imported when one runs."""

from . import measuring as measuring
from . import telling as telling
from . import training as training
from . import using as using
from .app import app as app
