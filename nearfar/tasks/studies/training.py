"""One cell of a study: trained once, measured once, and never again."""

from __future__ import annotations

from typing import Any

from ...ablation.cells import BASE, SWEEP_SEED, Cell
from ...ablation.sweep import TEMPERATURES, Sweep, choose
from ...console import Line
from ...errors import HealthError
from ...evaluation import knn, linear
from ...runs import Run
from ...runs.atomic import discard, read_json
from ..encoder import Encoder
from ..train import FREE, trained
from .setup import Say, Setup

SCORES = "scores.json"


def run_cell(setup: Setup, cell: Cell, say: Say) -> dict[str, Any]:
    """Scores of a cell: those on the disk, or trained for, from the newest checkpoint where there is one.

    A training that collapses has `failed`, the reason, in place of scores; that is a result too.

    Raises:
        Stopped: Ctrl-C or SIGTERM, after a checkpoint.
    """
    folder = setup.out / cell.folder
    if (folder / SCORES).is_file():
        return read_json(folder / SCORES)
    job, identity = setup.job(cell), {"part": cell.part, "variant": cell.variant, "temperature": cell.temperature}
    whole = job.identity(setup.data)
    whole["info"] |= {"study": identity if cell.part != BASE else {"part": BASE}}
    with Run.open_or_create(folder, **whole, free=FREE, say=say) as run:
        try:
            encoder = trained(job, run, Line(total=0), say)
        except HealthError as error:
            found: dict[str, Any] = {"failed": str(error.what)}
        else:
            found = _measured(setup, cell, encoder)
        found |= {"temperature": cell.temperature, "seconds": _seconds(run, job.plan.batch), "steps": job.plan.total}
        run.write_json(SCORES, found)
        if (folder / "checkpoints").is_dir():
            discard(folder / "checkpoints")
    return read_json(folder / SCORES)


def _measured(setup: Setup, cell: Cell, encoder: Encoder) -> dict[str, Any]:
    """Accuracy on the part that the cell may be asked: of the last step, nothing chosen by it."""
    opened, ask = setup.parts(cell)
    x, y, test_x, test_y = encoder(opened.dataset), opened.dataset.labels, encoder(ask), ask.labels
    assert y is not None and test_y is not None
    scores = {"kNN": knn(x, y, test_x, test_y)}
    if not cell.sweep:
        scores["linear"] = linear(x, y, test_x, test_y)
    return {
        "scores": {name: score.value for name, score in scores.items()},
        "protocols": {name: score.protocol for name, score in scores.items()},
    }


def _seconds(run: Run, batch: int) -> float:
    """Of training, by the speeds that were logged: what lies between two starts of a run is not in it."""
    seconds, before = 0.0, 0
    for row in run.rows():
        seconds += (row["step"] - before) * batch / max(row["images_per_second"], 1e-9)
        before = row["step"]
    return round(seconds, 1)


def sweep(setup: Setup, variant: str, say: Say) -> Sweep | None:
    """Trains once for each temperature and chooses; None where every one of them collapsed."""
    tried: list[tuple[float, float | None]] = []
    for temperature in TEMPERATURES:
        cell = Cell("similarity", variant, SWEEP_SEED, temperature, sweep=True)
        found = run_cell(setup, cell, say)
        value = found["scores"]["kNN"] if "scores" in found else None
        say(f"{cell}: {found.get('failed') or f'kNN {value:.1%} on the validation part'}")
        tried.append((temperature, value))
    return choose(tried)
