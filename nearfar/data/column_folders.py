"""A folder for each of several images of a sample: `image/room/1.jpg` belongs to `depth/room/1.png`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .folder import list_folder, nothing_found, read_folder
from .names import safe_name
from .pixels import BadImage
from .source import Item, Source, file_blocks, problems_error

_ALIKE = "one image of a name in a folder, whatever its suffix: the name tells which images belong together"


def column_folders(path: Path, images: Sequence[str]) -> list[Path]:
    """The folder of each column, [] unless there are several columns and all are here; "image" may be called `rgb`."""
    found = [path / ("rgb" if name == "image" and not (path / name).is_dir() else name) for name in images]
    return found if len(found) > 1 and all(folder.is_dir() for folder in found) else []


def read_column_folders(
    folders: Sequence[Path], images: Sequence[str], *, labels: bool | None, text: bool = False
) -> list[Source]:
    """A source for each column, row i of all of them the same sample: images of one name but for its suffix.

    Samples, labels and captions are those of the first folder, as `read_folder` has them. A sample that another folder
    has no image for is a bad one; images that the first folder has no sample for are not looked at.

    Raises:
        DataError: A folder without images, two images of one name in a folder.
    """
    first = _read(folders[0], labels=labels, text=text)
    stems = _by_stem(first)
    sources = [first]
    for name, folder in zip(images[1:], folders[1:], strict=True):
        other = _read(folder, labels=False)
        there = _by_stem(other)
        items: list[Item] = [there.get(stem, BadImage("missing", f"not in {folder.name}/")) for stem in stems]
        sources.append(
            replace(
                other,
                names=first.names,
                key=f"{first.key[:16]}{other.key[:16]}",
                blocks=file_blocks(items),
                column=name,
            )
        )
    return sources


def _read(folder: Path, *, labels: bool | None, text: bool = False) -> Source:
    """As `read_folder`, which gives None for a folder that holds other files alone."""
    source = read_folder(folder, labels=labels, follow_links=False, text=text)
    if source is None:
        raise nothing_found(folder, list_folder(folder))
    return source


def _by_stem(source: Source) -> dict[str, Path]:
    """The file of each name without its suffix."""
    found: dict[str, Path] = {}
    problems = []
    for name in source.names:
        file = Path(source.path) / name
        if found.setdefault(str(Path(name).with_suffix("")), file) is not file:
            problems.append(f"'{safe_name(name)}' is one of two of its name")
    if problems:
        raise problems_error(problems, source.path, _ALIKE)
    return found
