"""How the loops that run on a CPU are compiled."""

from __future__ import annotations

import numba

# Sums may be reordered and multiplications fused; NaN and infinity keep their meaning.
FAST = {"contract", "reassoc", "nsz", "arcp"}


HOW = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
"""Division by 0 gives infinity or NaN: to raise would take a branch, and a loop with branches runs number by number."""

inlined = numba.njit(**HOW)


def compiled(function, **how):
    """Compiled without the GIL, cached beside its file or in the user's cache directory. `how` comes before `HOW`.

    Numba's cache is renewed when the file of the outermost function changes; a change to a file it merely imports would
    go unnoticed. So all functions that call one another are in one file. Where neither directory can be written to (a
    read-only container), a function is compiled once a process instead, in 0.3 to 5 s.
    """
    try:
        return numba.njit(**HOW | how, cache=True)(function)
    except RuntimeError:  # no directory to cache in
        return numba.njit(**HOW | how)(function)
