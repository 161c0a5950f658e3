"""`nearfar ablate`: which of the five parts matters? A base with one part swapped at a time, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..ablation.cells import MEASURES, Cell, Plan
from ..ablation.claims import claims
from ..ablation.picture import draw
from ..ablation.study import Study, rows_of
from ..ablation.sweep import COLLAPSED, PROTOCOL, Sweep
from ..console import Line
from ..data import Dataset, duplicates_across, load
from ..data.source import LABEL
from ..device import choose
from ..errors import DataError, UsageError
from ..runs.atomic import disk_errors, read_json, write_json
from ..runs.atomic import replace as replace_file
from ..settings import TrainSettings
from .build import check
from .evaluate import TEST_SHARE
from .opening import columns_of, read, store_size
from .studies.plan import FILE, decide_plan, store
from .studies.setup import Setup
from .studies.training import run_cell, sweep

OWN = ("method", "seed", "epochs", "hold_out", "split", "init", "teacher")
"""Settings that are the study's own."""


def ablate(
    data: str | Path,
    *,
    base: str = "amdim",
    vary: str | Sequence[str] = "all",
    seeds: int = 3,
    epochs: int | None = None,
    minutes: float | None = None,
    out: str | Path = "runs/ablation",
    test: str | Path | None = None,
    say: Callable[[str], None] | None = None,
    **settings: object,
) -> Study:
    """Trains a base method, and variants of it with one part swapped, with several seeds each, and compares them.

    Every training has the same images, epochs and settings. Each is measured once, after its last step, by linear
    classification and kNN on the test part. The same call again goes on with a study that was stopped: what is
    finished is not trained again, the rest goes on bit for bit. Seeds, parts and variants may be added: the results
    hold what is asked for and all variants that the study in the folder has measured.

    Args:
        data: Labelled images, as for `train`. Labels are used to measure alone, unless the base learns from them.
        base: Method that is varied.
        vary: Parts: views, encoder, extraction, similarity, loss; all; or single variants as `views:no-flip`,
            `encoder:resnet50`. They are listed in `nearfar.ablation.VARIANTS`.
        seeds: Trainings of each variant. Three is the least that gives an interval worth the name.
        epochs: Of every training; None: 10.
        minutes: In place of epochs: as many as the base takes so long for.
        out: Folder: `study.json`, `results.json`, `study.txt`, `study.png`, a run folder for each training.
        test: Labelled images for the answers; None: a fifth of `data`, drawn by class, which is then not trained on.
        say: Called with each message; None prints.
        settings: Those of `train`, the same for all variants.

    Returns:
        The study.

    Raises:
        UsageError: An unknown base, part or setting, or a folder with another study.
        DataError: No labels.
        Stopped: Ctrl-C or SIGTERM, after a checkpoint.

    Example:
        >>> import nearfar as nf
        >>> nf.ablate("digits", base="simclr", vary="views", encoder="small")  # doctest: +SKIP
    """
    say = say or Line(total=0).say
    setup, minutes = _setup(data, base, settings, epochs, minutes, Path(out), test, say)
    plan = decide_plan(setup, vary, seeds)
    store(setup, plan, minutes)
    say(_announced(setup, plan))
    swept, chosen = _swept(setup, plan, say)
    if swept != plan:
        store(setup, swept, minutes)
    return _run(setup, swept, chosen, say)


def _setup(
    data: str | Path,
    base: str,
    settings: dict[str, object],
    epochs: int | None,
    minutes: float | None,
    out: Path,
    test: str | Path | None,
    say: Callable[[str], None],
) -> tuple[Setup, float | None]:
    """Settings and data; raises before any work what would go wrong after hours."""
    own = [name for name in settings if name.replace("-", "_") in OWN]
    if own:
        raise UsageError(f"{own[0]} is the study's own", where="settings", mend="leave it out; --base names the method")
    if epochs is not None and minutes is not None:
        raise UsageError("epochs and minutes", where="epochs, minutes", mend="one of them")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"{minutes} minutes", where="minutes", mend="more than 0")
    checked = check({**settings, "method": base, "epochs": epochs or 10, "hold_out": 0.0, "seed": 0})
    if columns_of(checked) != ("image",):
        raise UsageError(f"{base} does not learn from images alone", where="base", mend="--base simclr")
    if checked.threads:
        torch.set_num_threads(checked.threads)
    opened = read(data, checked, say)
    train, ask = _parts(opened.dataset, test, checked.label, size=store_size(opened.size), say=say)
    device = choose(checked.device, checked.precision)
    setup = Setup(str(data), checked, replace(opened, dataset=train), ask, device, out)
    if minutes is not None:
        again = check({**settings, "method": base, "epochs": _epochs(setup, minutes), "hold_out": 0.0, "seed": 0})
        setup = replace(setup, settings=again)
    return setup, minutes


def _epochs(setup: Setup, minutes: float) -> int:
    """Decided once: a study that goes on has those it began with."""
    stored: dict[str, Any] = read_json(setup.out / FILE) if (setup.out / FILE).is_file() else {}
    if stored.get("minutes") == minutes:
        return TrainSettings(**stored["identity"]["settings"]).epochs
    return setup.epochs_of(minutes)


def _parts(
    whole: Dataset, test: str | Path | None, label: str | None, *, size: int, say: Callable[[str], None]
) -> tuple[Dataset, Dataset]:
    """The training part and the test part."""
    if whole.labels is None:
        raise DataError("a study is measured by labels and the data has none", where="data", mend="one folder a class")
    if test is None:
        learn, ask = whole.split(TEST_SHARE, seed=0)
        if not len(ask):
            raise DataError("too few images a class to hold a fifth out", where="data", mend="give others with --test")
        return whole.subset(learn), whole.subset(ask)
    other = load(test, size=size, channels=whole.inputs.shape[1], labels=True, label=label or LABEL)
    if other.classes != whole.classes:
        raise DataError("the test part has other classes", where="test", mend="give both parts the same classes")
    shared = duplicates_across(whole, other)
    if shared:
        say(f"warning: {len(shared)} images are in both parts; the scores are too good by as much")
    return whole, other


def _announced(setup: Setup, plan: Plan) -> str:
    """What will be trained, and what will not."""
    count = len(plan.cells(0)) * len(plan.seeds)
    lines = [
        f"base {setup.settings.method} with {setup.settings.encoder}, epochs: {setup.settings.epochs}, on "
        f"{len(setup.train.dataset):,} images, measured on {len(setup.test):,}",
        *(f"{part}: {', '.join(names) or 'nothing'}" for part, names in plan.variants.items()),
        *(f"not trained: {part} {variant}: {reason}" for part, variant, reason in plan.skipped),
        f"{count} trainings" + (", and those that choose temperatures" if plan.variants.get("similarity") else ""),
    ]
    return "\n".join(lines)


def _swept(setup: Setup, plan: Plan, say: Callable[[str], None]) -> tuple[Plan, dict[str, Sweep]]:
    """The plan without the similarities that collapse at every temperature, and the temperatures of the others."""
    chosen: dict[str, Sweep] = {}
    names = plan.variants.get("similarity", [])
    for name in names:
        found = sweep(setup, name, say)
        if found is None:
            say(f"not trained: similarity {name}: {COLLAPSED}")
        else:
            chosen[name] = found
    left_out = [("similarity", name, COLLAPSED) for name in names if name not in chosen]
    if not left_out:
        return plan, chosen
    return replace(plan, variants=plan.variants | {"similarity": [*chosen]}, skipped=[*plan.skipped, *left_out]), chosen


def _run(setup: Setup, plan: Plan, chosen: dict[str, Sweep], say: Callable[[str], None]) -> Study:
    """All cells, seed after seed, so that what there is after each is a study of its own."""
    found: dict[Cell, dict[str, Any]] = {}
    done, total = 0, len(plan.seeds) * len(plan.cells(0))
    study = None
    for seed in plan.seeds:
        for cell in plan.cells(seed):
            if cell.part == "similarity":
                cell = replace(cell, temperature=chosen[cell.variant].chosen)
            found[cell], done = run_cell(setup, cell, say), done + 1
            say(f"[{done}/{total}] {cell}: {_told(found[cell])}")
        study = _concluded(setup, replace(plan, seeds=plan.seeds[: seed + 1]), found, chosen)
    assert study is not None
    with disk_errors(setup.out):
        draw(study, setup.out / "study.png")
    say(f"\n{study.as_text()}\n\nwrote study.txt, results.json and study.png in {setup.out}")
    return study


def _told(found: dict[str, Any]) -> str:
    if "failed" in found:
        return found["failed"]
    scores = ", ".join(f"{name} {value:.1%}" for name, value in found["scores"].items())
    return f"{scores} ({found['seconds']:,.0f} s)"


def _concluded(setup: Setup, plan: Plan, found: dict[Cell, dict[str, Any]], chosen: dict[str, Sweep]) -> Study:
    """The study so far, written as text and JSON."""
    measured = next((one["protocols"] for one in found.values() if "protocols" in one), {})
    study = Study(
        path=setup.out,
        base=setup.settings.method,
        epochs=setup.settings.epochs,
        seeds=plan.seeds,
        rows=rows_of(plan, found),
        skipped=plan.skipped,
        sweeps=chosen,
        protocol=[
            f"{len(setup.train.dataset):,} images to train on and to learn from; epochs of "
            f"each variant: {setup.settings.epochs}; seconds are of training, GFLOP of a forward pass of one image",
            *(f"{name}: {measured[name].split('; 95 %')[0]}" for name in MEASURES if name in measured),
            "differences: variant less base, seed by seed; intervals: mean ± t(0.975, n - 1) s / sqrt(n) over seeds, "
            "which leaves out the choice of images",
            "verdicts: paired t test, p values after Holm over all comparisons of a part (both measures), 0.05; the "
            f"table shows that of {MEASURES[0]}",
            *([PROTOCOL] if chosen else []),
        ],
    )
    study = replace(study, claims=claims(study))
    with disk_errors(setup.out):
        write_json(setup.out / "results.json", study.as_dict())
        replace_file(setup.out / "study.txt", lambda path: path.write_text(study.as_text() + "\n", encoding="utf-8"))
    return study
