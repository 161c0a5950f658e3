"""What a study will do: decided before anything is trained, stored, and compared when the study goes on."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ...ablation.cells import BASE, SWEEP_SEED, Cell, Plan, wanted
from ...ablation.cost import Cost, cost
from ...ablation.variants import find
from ...errors import UsageError
from ...runs.atomic import read_json, write_json
from ...runs.versions import versions
from ..train import FREE
from .setup import Setup
from .training import SCORES

FILE = "study.json"
MOST_COST = 16
"""A variant that takes more than so many times the operations of the base is left out, unless it is asked for by name:
the same epochs would take as many times longer."""


def decide_plan(setup: Setup, vary: str | Sequence[str], seeds: int) -> Plan:
    """Every variant is tried on a few images; what can't be, changes nothing or costs too much is left out.

    Variants that the study in the folder has measured, or has left out, are in the plan whether asked for or not.

    Raises:
        UsageError: No seeds, another study, or a folder that holds something else.
    """
    if not 1 <= seeds < SWEEP_SEED:
        raise UsageError(f"{seeds} seeds", where="seeds", mend="3 at least for an interval that says something")
    asked = [vary] if isinstance(vary, str) else list(vary)
    wanted(asked)
    measured, left_out = _before(setup)
    by_name = {*asked, *measured}
    own = cost(setup.base, setup.batch)
    variants: dict[str, list[str]] = {}
    skipped: list[tuple[str, str, str]] = []
    costs = {f"{BASE} {BASE}": own}
    for part, names in wanted([*measured, *left_out, *asked]).items():
        variants[part] = []
        for name in names:
            most = math.inf if f"{part}:{name}" in by_name else MOST_COST * own.flops
            reason, found = _tried(setup, part, name, most)
            if reason:
                skipped.append((part, name, reason))
                continue
            variants[part].append(name)
            assert found is not None
            costs[f"{part} {name}"] = found
    return Plan(variants, skipped, costs, list(range(seeds)))


def _tried(setup: Setup, part: str, name: str, most: float) -> tuple[str, Cost | None]:
    """Why a variant is left out, or nothing and its cost."""
    try:
        method = setup.changed(part, name)
    except UsageError as error:
        return f"does not fit: {error.what}" + (f" ({error.mend})" if error.mend else ""), None
    if method is setup.base:
        return "for this base the same as what it has", None
    found = cost(method, setup.batch)
    if found.flops > most:
        times = found.flops / most * MOST_COST
        return f"{times:.0f} times the operations of the base ({part}:{name} trains it all the same)", None
    return "", found


def _before(setup: Setup) -> tuple[list[str], list[str]]:
    """Variants that the study in the folder has measured, and those it has left out, as `part:variant`.

    A variant that was planned and has no scores yet is in neither: it is trained when it is asked for again.
    """
    stored = _stored(setup)
    planned = [(part, name) for part, names in stored.get("variants", {}).items() for name in names]
    measured = [one for one in planned if any((setup.out / Cell(*one, 0).folder.parent).glob(f"seed*/{SCORES}"))]
    left_out = [(part, name) for part, name, _ in stored.get("skipped", [])]
    for part, name in [*measured, *left_out]:
        try:
            find(part, name)
        except UsageError as error:
            raise UsageError(
                f"this study has the variant {part}:{name}, which isn't there now",
                where=setup.out,
                mend="add it to nearfar.ablation.VARIANTS again, or choose another --out",
            ) from error
    return [":".join(one) for one in measured], [":".join(one) for one in left_out]


def _stored(setup: Setup) -> dict[str, Any]:
    """The study that the folder holds, empty where there is none.

    More seeds, parts and variants may be added to a study; what its numbers depend on may not change.

    Raises:
        UsageError: Another study, or a folder that holds something else.
    """
    path = setup.out / FILE
    if path.is_file():
        stored = read_json(path)
        differing = differences(stored.get("identity", {}), identity(setup))
        if differing:
            raise UsageError(
                "\n  ".join(["this study has other settings (stored -> given):", *differing]),
                where=setup.out,
                mend="give the stored settings to go on with it, or another --out",
            )
        return stored
    if setup.out.exists() and any(setup.out.iterdir()):
        raise UsageError("the folder is not empty and holds no study", where=setup.out, mend="choose another --out")
    return {}


def store(setup: Setup, plan: Plan, minutes: float | None) -> None:
    """Writes `study.json`."""
    setup.out.mkdir(parents=True, exist_ok=True)
    record = {
        "format": 1,
        "command": list(sys.argv),
        "versions": versions(),
        "minutes": minutes,
        "identity": identity(setup),
        "seeds": plan.seeds,
        "sweep_seed": SWEEP_SEED,
        "variants": plan.variants,
        "skipped": [list(one) for one in plan.skipped],
        "costs": {name: asdict(one) for name, one in plan.costs.items()},
        "cells": [str(cell.folder) for seed in plan.seeds for cell in plan.cells(seed)],
    }
    write_json(setup.out / FILE, record)


def identity(setup: Setup) -> dict[str, Any]:
    """What the numbers of a study depend on."""
    settings = setup.settings.model_dump(mode="json", exclude=set(FREE))
    return {"settings": settings, "train": setup.train.dataset.fingerprint, "test": setup.test.fingerprint}


def differences(stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """`key: stored -> given` of each that differs."""
    flat = [{**one.get("settings", {}), "train": one.get("train"), "test": one.get("test")} for one in (stored, given)]
    keys: Iterable[str] = dict.fromkeys([*flat[0], *flat[1]])
    return [f"{key}: {flat[0].get(key)} -> {flat[1].get(key)}" for key in keys if flat[0].get(key) != flat[1].get(key)]
