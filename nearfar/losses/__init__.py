"""The fifth part: losses, `(Pairs, Similarity) -> scalar`."""

from .infonce import infonce as infonce
