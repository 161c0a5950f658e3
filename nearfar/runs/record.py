"""The record of a run, `nearfar-run.json`: what was asked for, with which versions, and what may change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import IntegrityError, UsageError
from .atomic import read_json
from .versions import refuse_newer, versions

MARKER = "nearfar-run.json"
"""The file that makes a folder a run; a folder that holds it is never scanned as data."""

FORMAT = 1
_PARTS = {"settings": dict, "info": dict, "versions": dict, "resumed": list}

MOST = 5
"""Values of a list that are named in an error."""


def new_record(settings: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that begins now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    start = {"time": now, "command": list(sys.argv), "versions": versions()}
    record = {"format": FORMAT, **start, "settings": dict(settings), "info": dict(info), "resumed": []}
    return json.loads(json.dumps(record, allow_nan=False))  # as it will be read back: tuples become lists


def read_record(path: Path) -> dict[str, Any]:
    """A record that is there and can be understood; see `Run.open`."""
    if not path.is_file():
        raise UsageError("this folder holds no run", where=path.parent, mend="give a folder that `nearfar train` made")
    record = read_json(path)
    refuse_newer(record, FORMAT, path)
    if not all(isinstance(record.get(part), kind) for part, kind in _PARTS.items()):
        raise IntegrityError("the record of the run is damaged", where=path, mend="restore the file")
    return record


def continued(
    stored: dict[str, Any], new: dict[str, Any], *, free: set[str], where: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """The record of a run that goes on: free settings as given now, this start added to its list.

    Raises:
        UsageError: Something that is not free differs.
    """
    lines = differences(stored, new, free)
    if lines:
        what = "\n  ".join(["this run has other settings (stored -> given):", *lines])
        mend = "give the stored settings to continue it, or another --out to start a new one"
        raise UsageError(what, where=where, mend=mend)
    changed = _changes(stored["versions"], new["versions"])
    if changed:
        say(f"versions changed since the run began ({'; '.join(changed)}): results may differ in the last bits")
    start = {key: new[key] for key in ("time", "command", "versions")}
    return {**stored, "settings": new["settings"], "info": new["info"], "resumed": [*stored["resumed"], start]}


def differences(stored: Mapping[str, Any], given: Mapping[str, Any], free: set[str]) -> list[str]:
    """What keeps two records from being those of one run, a line `key: stored -> given` each."""
    lines = []
    for part in ("settings", "info"):
        old, new = ({key: value for key, value in side[part].items() if key not in free} for side in (stored, given))
        lines += _changes(old, new)
    return lines


def _told(value: Any) -> str:
    """A value as JSON, of a long list its beginning."""
    if isinstance(value, list) and len(value) > MOST:
        return f"{len(value)} values, {json.dumps(value[:MOST])[:-1]}, ...]"
    return json.dumps(value)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested keys have dots. What one side lacks and the other has empty is the same: a setting that came later."""
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _changes(before, after, f"{prefix}{key}.")
        elif before != after and (before or after or (key in old and key in new)):
            texts = [_told(side[key]) if key in side else "not set" for side in (old, new)]
            lines.append(f"{prefix}{key}: {texts[0]} -> {texts[1]}")
    return lines
