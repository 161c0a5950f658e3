"""The command line: the functions of `nearfar.tasks`, under the same names. Torch is imported when a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from . import __version__
from .errors import NearfarError
from .flags import SEVERAL

app = App(
    name="nearfar",
    help="Learn embeddings of images without labels, see how good they are, and use them. Errors are one line; --debug "
    "shows where they come from.",
    version=__version__,
    result_action="return_value",
)


@app.command
def train(
    data: str,
    /,
    *,
    out: Path = Path("runs/run"),
    config: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    **settings: str,
) -> None:
    """Train an encoder on images, without needing a label. The same command again goes on with a stopped run.

    Parameters
    ----------
    data
        Folder, manifest (.csv, .jsonl), Parquet, .npy or .npz, or "digits".
    out
        Run folder.
    config
        YAML file with settings; flags come before it.
    dry_run
        Say what would happen and stop there.
    settings
        Any setting: see `nearfar settings`; and those of the method: see `nearfar methods NAME`.
    """
    from .tasks import train

    train(data, out=out, config=config, dry_run=dry_run, say=None, **_named(settings))


@app.command
def evaluate(
    run: Path,
    data: str,
    /,
    *,
    test: str | None = None,
    label: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Measure an encoder on labelled images, sounds or texts: 1, 5 and all labels a class, kNN, clustering.

    Parameters
    ----------
    run
        Run folder.
    data
        Labelled images: one folder a class, a manifest, Parquet, arrays.
    test
        Labelled images for the answers; without it a fifth of the data, drawn by class.
    label
        Column that holds the labels, where it is not called label.
    seed
        Of the split and of the draws of labels.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from .tasks import evaluate

    evaluate(run, data, test=test, label=label, seed=seed, device=device)


@app.command
def embed(run: Path, data: str, /, *, out: Path, device: str = "auto") -> None:
    """Write a vector for every image, as Parquet that other tools open.

    Parameters
    ----------
    run
        Run folder.
    data
        Images, as for train.
    out
        Parquet file to write.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from .tasks import embed

    embed(run, data, out=out, device=device)


@app.command
def few_shot(
    run: Path,
    data: str,
    /,
    *,
    split: str | None = None,
    part: str = "test",
    ways: int = 5,
    shots: Annotated[tuple[int, ...], SEVERAL] = (1, 5),
    queries: int = 15,
    episodes: int = 10_000,
    heads: Annotated[tuple[str, ...], SEVERAL] = ("lr", "ncm"),
    seed: int = 0,
    query_prior: str = "unknown",
    dirichlet: float | None = None,
    against: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    support_views: int = 0,
    query_views: int = 0,
    device: str = "auto",
) -> None:
    """Measure an encoder on new classes from a handful of examples, over thousands of episodes.

    Parameters
    ----------
    run
        Run folder.
    data
        Labelled images, as for evaluate.
    split
        Published split (cifar-fs, fc100, omniglot-vinyals, ...) or JSON file; without it all classes are taken for new.
    part
        train, val or test.
    ways
        Classes of an episode.
    shots
        Labelled images a class; several numbers for several lists of episodes.
    queries
        Images a class that are asked for.
    episodes
        Number of episodes.
    heads
        What is fitted to the examples of an episode: ncm, lr, ridge, nn and others.
    seed
        Of the episodes.
    query_prior
        What transductive heads are told of the classes of the queries: unknown or uniform.
    dirichlet
        Unbalanced queries: concentration of the shares of the classes, such as 2.
    against
        Other run folders to compare with.
    support_views
        Augmented copies in place of each example.
    query_views
        Augmented copies averaged with each query.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from .tasks import evaluate_few_shot

    evaluate_few_shot(
        run, data, split=split, part=part, ways=ways, shots=shots, queries=queries, episodes=episodes, heads=heads,
        seed=seed, query_prior=query_prior, dirichlet=dirichlet, against=against, support_views=support_views,
        query_views=query_views, device=device,
    )  # fmt: skip


@app.command
def classify(
    run: Path,
    support: str,
    photos: str,
    /,
    *,
    out: Path,
    head: str = "lr",
    unknown: str | None = None,
    device: str = "auto",
) -> None:
    """Label many images from a handful of sorted examples, as a CSV table.

    Parameters
    ----------
    run
        Run folder.
    support
        Examples, one folder a class.
    photos
        Images to label.
    out
        CSV file to write.
    head
        What is fitted to the examples: lr, ncm, ridge, nn and others.
    unknown
        Share of images of known classes that may be called unknown, such as 0.05, or auto; without it all get a class.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from .tasks import classify

    classify(run, support, photos, out=out, head=head, unknown=unknown, device=device)


@app.command
def preview(data: str, /, *, out: Path = Path("preview.png"), images: int = 8, **settings: str) -> None:
    """Draw a contact sheet of what the model will see.

    Parameters
    ----------
    data
        Images, as for train.
    out
        PNG file to write.
    images
        Number of images.
    settings
        Those of train.
    """
    from .tasks import preview

    preview(data, out=out, images=images, say=print, **_named(settings))


@app.command
def scan(data: str, /) -> None:
    """Look at data without training: sizes, classes, unreadable files, duplicates.

    Parameters
    ----------
    data
        Images, as for train.
    """
    from .data import scan

    print(scan(data).details())


@app.command
def methods(name: str | None = None, /) -> None:
    """List the methods with their five parts, or everything about one.

    Parameters
    ----------
    name
        Method to describe.
    """
    from .describe import method_table, one_method

    print(method_table() if name is None else one_method(name))


@app.command
def settings() -> None:
    """List every setting of train: its type, default and meaning."""
    from .describe import setting_table

    print(setting_table())


@app.command
def doctor() -> None:
    """Check the installation, the device and the disk, and say how to mend what is wrong."""
    from .doctor import as_text, checks

    found = checks()
    print(as_text(found))
    if not all(check.ok for check in found):
        raise SystemExit(4)


def _named(flags: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in flags.items()}


def main() -> None:
    """Runs the command line; errors are a line each, and the exit code says whose they are."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        known = [name for name in arguments[:1] if name in app]
        _fail(f"E-usage {error} | {' '.join(arguments[:1])} | {' '.join(['nearfar', *known, '--help'])}", 2)
    except NearfarError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("E-stopped stopped at once | | the same command again goes on from the last checkpoint", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        _fail(f"E-bug {what} | nearfar | a mistake of ours: with --debug the same command shows where", 1)


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code)
