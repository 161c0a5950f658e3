"""What a study is made of: one training for each variant and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from .cost import Cost
from .variants import VARIANTS, find

MEASURES = ("linear", "kNN")
"""Of every training; the first is the one that a study is read by."""
BASE = "base"
SWEEP_SEED = 999_983
"""Seed of the trainings that temperatures are chosen by; no final one has it."""
VALIDATION = 0.1
"""Share of the training part, of each class, that temperatures are chosen on."""


@dataclass(frozen=True)
class Cell:
    """One training: a variant of a part with a seed; `sweep`: one that a temperature is chosen by."""

    part: str
    variant: str
    seed: int
    temperature: float | None = None
    sweep: bool = False

    @property
    def folder(self) -> Path:
        """Its run folder within that of the study."""
        last = f"sweep/t{self.temperature:g}" if self.sweep else f"seed{self.seed}"
        variant = self.variant.replace(":", "-").replace("/", "-")
        return Path(BASE, last) if self.part == BASE else Path(self.part, variant, last)

    def __str__(self) -> str:
        """In words."""
        name = BASE if self.part == BASE else f"{self.part} {self.variant}"
        return f"{name}, temperature {self.temperature:g} tried" if self.sweep else f"{name}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Args:
        variants: Part -> variants that are trained, in order.
        skipped: (part, variant, reason) of those that are not.
        costs: "part variant" -> cost; "base base" is the base.
        seeds: Of the final trainings.
    """

    variants: dict[str, list[str]]
    skipped: list[tuple[str, str, str]]
    costs: dict[str, Cost]
    seeds: list[int] = field(default_factory=list)

    def cells(self, seed: int) -> list[Cell]:
        """The final trainings of a seed; those of similarities get their temperature when it is chosen."""
        named = [(part, variant) for part, names in self.variants.items() for variant in names]
        return [Cell(part, variant, seed) for part, variant in [(BASE, BASE), *named]]


def wanted(vary: str | Sequence[str]) -> dict[str, list[str]]:
    """Part -> variants asked for: `views`, `views:no-flip`, `all`.

    Raises:
        UsageError: A part or variant that isn't there, or none.

    Example:
        >>> wanted(("loss", "views:none"))["views"]
        ['none']
    """
    asked = [vary] if isinstance(vary, str) else list(vary)
    if "all" in asked:
        asked = [*VARIANTS, *(one for one in asked if one != "all")]
    found: dict[str, list[str]] = {}
    for one in asked:
        part, _, variant = one.partition(":")
        if part not in VARIANTS:
            raise UsageError(f"no part {part!r}", where="vary", mend=f"some of {', '.join(VARIANTS)}, or all")
        names = [variant] if variant else list(VARIANTS[part])
        for name in names:
            find(part, name)
        found[part] = [*found.get(part, []), *(n for n in names if n not in found.get(part, []))]
    if not found:
        raise UsageError("nothing to vary", where="vary", mend=f"some of {', '.join(VARIANTS)}, or all")
    return {part: found[part] for part in VARIANTS if part in found}
