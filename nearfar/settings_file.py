"""Settings from a YAML file: plain values only, and every key with its line for the error that may name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import IntegrityError, UsageError

LARGEST = 100_000
"""Bytes; a settings file has a few hundred, and the scanner is slow."""


DEEPEST = 10
"""Levels of nesting; settings have two or three."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Keys and values of a settings file.

    Raises:
        UsageError: No such file, not YAML, not a mapping, a key twice, anchors (which can be made to fill the memory).
        IntegrityError: A tag that would make Python objects.
    """
    node = _mapping(Path(path))
    return yaml.SafeLoader("").construct_document(node) if node is not None else {}


def yaml_lines(path: str | Path) -> dict[str, str]:
    """The place `file:line` of every key, nested keys with dots; for the `where` of `parse`."""
    node = _mapping(Path(path))
    return {} if node is None else {key: f"{path}:{line}" for key, line in _keys(node, Path(path), "")}


def _mapping(path: Path) -> yaml.MappingNode | None:
    """The file as nodes, which know their lines and are nothing yet; None for an empty file."""
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError("too large for settings", where=path, mend=f"at most {LARGEST:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
        _refuse_unsafe(text, path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", where=path, mend="give the path of a YAML file"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(
            f"not YAML: {error.problem}", where=f"{path}:{line}", mend="write `name: value` lines"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError("not text in UTF-8", where=path, mend="write `name: value` lines") from error
    if node is None:
        return None
    if not isinstance(node, yaml.MappingNode):
        raise UsageError("no settings", where=f"{path}:{node.start_mark.line + 1}", mend="write `name: value` lines")
    _keys(node, path, "")
    return node


_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def _refuse_unsafe(text: str, path: Path) -> None:
    """Looks at the tokens alone, before anything is built from them."""
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        where = f"{path}:{token.start_mark.line + 1}"
        if depth > DEEPEST:  # the scanner needs time as the square of the depth, 30 s for a file of 50 kB
            raise UsageError("nested too deep", where=where, mend=f"at most {DEEPEST} levels")
        if isinstance(token, yaml.TagToken):
            raise IntegrityError(
                f"the tag {''.join(filter(None, token.value))} asks for an object",
                where=where,
                mend="plain values only",
            )
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
            raise UsageError(
                f"anchors and aliases (here {token.value!r}) are not read", where=where, mend="write the value out"
            )


def _keys(node: yaml.MappingNode, path: Path, prefix: str) -> list[tuple[str, int]]:
    """Every key and its line; a key that is no text or is there twice is refused."""
    found: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise UsageError("a name must be text", where=f"{path}:{line}", mend="write `name: value` lines")
        name = prefix + key.value
        if name in found:
            what = f"{name} is there twice, first in line {found[name]}"
            raise UsageError(what, where=f"{path}:{line}", mend="leave one of them out")
        found[name] = line
        if isinstance(value, yaml.MappingNode):
            found |= dict(_keys(value, path, name + "."))
    return list(found.items())
