"""The page of methods, the table of five parts, and the ablations that the documentation promises in one line."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import SIDE

from nearfar import methods
from nearfar.contract import stripes
from nearfar.describe import FIVE, brief, example, method_table, one_method, parts
from nearfar.method import Contrast, Method
from nearfar.methods import METHODS

DOCS = Path(__file__).parents[1] / "docs"
EXPECTED = {
    "simclr": ("2x224", "resnet50", "every_view", "cosine", "infonce", ""),
    "moco": ("2x224", "resnet50", "own_key", "cosine", "infonce", "slow copy, queue"),
    "supcon": ("2x224", "resnet50", "same_label", "cosine", "infonce", "labels"),
    "swav": ("2x224, 6x96", "resnet50", "Assigned", "cosine", "cross_entropy", ""),
    "mgecl": ("SupportViews", "resnet12", "class_and_instance", "dot, cosine", "hinge + infonce", "episodes"),
    "rfs": ("1x84", "resnet12", "KnownClasses", "dot", "infonce", "labels, earlier run"),
    "cpc_audio": ("SoundWindows", "sound", "Predict", "dot", "infonce", "sound"),
}


@pytest.fixture(scope="module")
def generate() -> dict:
    return runpy.run_path(str(DOCS / "generate.py"))


@pytest.fixture(scope="module")
def table() -> str:
    return method_table()


def test_the_page_is_what_the_program_writes(generate: dict) -> None:
    written = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert written == generate["page"](), "docs/methods.md is not what the docstrings say: `make docs`"


def test_every_method_has_all_of_its_sections(generate: dict) -> None:
    for name, function in METHODS.items():
        text = generate["section"](name, function)
        assert text.startswith(f"## {name}\n") and text.count("\n| encoder | ") == 1, name
        assert re.search(r"\n    .* {1,}.*=|\n    .*loss", text), f"{name}: no formula"
        wanted = (r"\*\*Differs from [^:]*:\*\*", r"\*\*Relations:\*\*", r"\*\*Source\.\*\* .*<https://", "```python")
        assert not [one for one in wanted if not re.search(one, text)], name
        assert " at 0x" not in text and not re.search(r"^\s*Args:|^\s*Raises:", text, re.MULTILINE), name


def test_links_of_the_page_lead_somewhere(generate: dict) -> None:
    text = generate["page"]()
    asked = set(re.findall(r"\]\(#([\w-]+)\)", text))
    assert asked == set(METHODS) == set(re.findall(r"^## (\w+)$", text, re.MULTILINE))


def documented(*, width: int = 3, share: float = 1 / 7) -> None:
    """One.

        loss = |a|

    Args:
        width: Of a < b | c.
        share: Two
            lines.

    A paragraph.
    Differs from the paper: `simclr` and `width`, at https://a.b/c.
    """


def undocumented(*, width: int = 3, other: int = 4) -> None:
    """One.

    Args:
        width: Of it.
    """


def test_the_markdown_of_a_docstring(generate: dict) -> None:
    generate["_paragraphs"].__globals__["_parts"] = lambda function: "PARTS"
    assert list(generate["_paragraphs"](documented)) == [
        "    loss = |a|",
        "PARTS",
        "| argument | default | |\n|---|---|---|\n"
        "| `width` | `3` | Of a \\< b \\| c. |\n| `share` | `0.1429` | Two lines. |",
        "A paragraph.",
        "**Differs from the paper:** [`simclr`](#simclr) and `width`, at <https://a.b/c>.",
    ]
    with pytest.raises(KeyError, match="other"):
        list(generate["_paragraphs"](undocumented))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_five_parts_in_brief(name: str) -> None:
    assert tuple(brief(name).values()) == EXPECTED[name]
    assert tuple(brief(name)) == (*FIVE, "beside")


def test_the_table_has_every_method_and_fits_a_terminal(table: str) -> None:
    lines = table.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("method "))
    assert [line.split()[0] for line in lines[: head - 1]] == list(METHODS)
    assert lines[head].split() == ["method", "views,", "px", *FIVE[1:], "beside"]
    rows = [line.split()[0] for line in lines[head + 2 : -2] if not line.startswith(" ")]
    assert rows == list(METHODS), "a name is broken: the first column is too narrow"
    assert max(map(len, lines[head:-2])) <= 100


def test_examples_have_no_weights_and_the_papers_parts() -> None:
    method = example(methods.byol)
    assert {p.device.type for p in method.encoder.parameters()} == {"meta"}
    told = parts(method)
    assert list(told) == [*FIVE, "teacher"]
    assert told["views"].startswith("crop of 0.08 to 1 of the area, 224 px") and "; crop" in told["views"]
    assert told["extraction"] == "mlp 4096 - 256 -> Predicted" and told["encoder"].startswith("resnet50: ")
    assert parts(example(methods.moco))["views"].startswith("2 x crop of 0.2 to 1")


def test_all_about_one_method() -> None:
    told = one_method("moco")
    assert "--queue" in told and "default 65536" in told and "arxiv.org/abs/1911.05722" in told
    assert "  loss        infonce(temperature=0.2)" in told and "--encoder" not in told


# Ablations in one line -----------------------------------------------------------------------------------------------


def blocks(page: str) -> list[str]:
    """The Python of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def gradient(method: Method) -> torch.Tensor:
    """Of the encoder's first weights, on the same images and with the same initial weights of all that is shared."""
    torch.manual_seed(0)
    model = Contrast(method)
    loss = model(stripes(16).batch(np.arange(16), seed=1, epoch=0))
    loss.backward()
    assert torch.isfinite(loss)
    found = next(model.encoder.parameters()).grad
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "base"),
    [("no_colour", "simclr"), ("dot_product", "simclr"), ("decoupled", "moco"), ("no_predictor", "byol"),
     ("no_slow_copy", "byol"), ("no_queue", "moco")],
)  # fmt: skip
def test_ablations_in_one_line(name: str, base: str) -> None:
    torch.manual_seed(0)
    found = one_line_ablations()
    changed = gradient(found[name])
    assert changed.any() and changed.isfinite().all()
    if name != "no_slow_copy":  # the slow copy is the network itself until the first step
        assert not torch.allclose(changed, gradient(found[base]), rtol=1e-3)
    told, was = parts(found[name]), parts(found[base])
    swapped = {part for part in was if told.get(part) != was[part]}
    part = {"no_colour": "views", "dot_product": "similarity", "decoupled": "loss", "no_slow_copy": "teacher"}
    assert swapped == {part.get(name)} or name in ("no_predictor", "no_queue")


def one_line_ablations() -> dict[str, Method]:
    """What the page makes, with views of the toy's size."""
    (text,) = (block for block in blocks("ablation.md") if "no_queue" in block)
    ablations = [line for line in text.splitlines() if " = replace(" in line]
    assert len(ablations) >= 3 and all(len(line) <= 130 for line in ablations)
    space: dict = {}
    exec(text.replace("size=32", f"size={SIDE}"), space)
    return {name: one for name, one in space.items() if isinstance(one, Method)}


def test_the_variant_of_the_page_about_own_methods_works() -> None:
    space: dict[str, Callable[..., Method]] = {}
    exec(blocks("own_method.md")[0], space)
    assert parts(space["dot"](encoder="small", size=32))["similarity"] == "dot"
