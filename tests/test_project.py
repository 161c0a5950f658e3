"""Conventions of the project as a whole: they hold for every file, whoever wrote it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = sorted((REPOSITORY / "nearfar").rglob("*.py"))
PROGRAMS = sorted(path for folder in ("benchmarks", "examples") for path in (REPOSITORY / folder).rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
FILE_LINES, FUNCTION_LINES, METHOD_FILE_LINES = 300, 70, 120
NOT_IN_CORE = {"torchvision", "timm", "torchmetrics", "transformers", "lightning", "lightly", "kornia", "pandas"}
UNTIDY = re.compile(r"\bTODO\b|\bFIXME\b|except:|except Exception:|# type: ignore")
NAMES = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
SAID_BY_TORCH = {"forward", "extra_repr", "train"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def offenders(files, faults) -> dict[str, list[str]]:
    """Files with what is wrong in each."""
    found = {str(path.relative_to(REPOSITORY)): faults(path) for path in files}
    return {name: wrong for name, wrong in found.items() if wrong}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Top-level packages that these statements import."""
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0]
    return {name.split(".")[0] for name in names}


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs at import; `if TYPE_CHECKING` does not."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, FUNCTIONS) and not (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ):
            yield node
            yield from outside_functions(node)


def test_the_walk_tells_import_time_from_use():
    tree = ast.parse(
        "import a.b\ntry:\n    from c import d\nfinally:\n    pass\ndef f():\n    import e\nfrom . import g"
    )
    assert imported(list(outside_functions(tree))) == {"a", "c"}


def test_I1_no_file_imports_an_optional_package_at_import():
    assert not offenders(PACKAGE, lambda path: sorted(imported(list(outside_functions(tree_of(path)))) & NOT_IN_CORE))


@pytest.mark.parametrize("code", ["import nearfar", "import nearfar.errors", "import nearfar.cli"])
def test_I3_torch_is_not_imported_before_it_is_used(code):
    heavy = "{'torch', 'numba', 'sklearn', 'matplotlib', 'pyarrow'}"
    assert python(f"{code}; import sys; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_I3_help_answers_without_torch():
    code = (
        "import sys; sys.argv = ['nearfar', '--help']\n"
        "from nearfar.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('torch' in sys.modules)"
    )
    told = python(code)
    assert "train" in told and told.strip().splitlines()[-1] == "False"


def test_every_public_name_is_there():
    assert (
        python("import nearfar as n; print([name for name in n.__all__ if getattr(n, name) is None])").strip() == "[]"
    )


def test_files_and_functions_stay_within_their_budget():
    def too_long(path: Path) -> list[str]:
        limit, count = METHOD_FILE_LINES if path.parent.name == "methods" else FILE_LINES, text_of(path).count("\n")
        long = [n.name for n in ast.walk(tree_of(path)) if isinstance(n, FUNCTIONS) and lines(n) > FUNCTION_LINES]
        return [f"{count} lines"] * (count > limit) + long

    assert not offenders([*PACKAGE, *PROGRAMS], too_long)


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a definition, its docstring left out."""
    return rows(node) - (rows(node.body[0]) if ast.get_docstring(node) else 0)


def rows(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_nothing_is_left_undone_or_swallowed():
    def untidy(path: Path) -> list[str]:
        return [f"{n}: {line}" for n, line in enumerate(text_of(path).splitlines(), 1) if UNTIDY.search(line)]

    assert not offenders([*PACKAGE, *PROGRAMS, *(path for path in TESTS if path.name != Path(__file__).name)], untidy)


def public(tree: ast.Module) -> Iterator[Definition]:
    """Public functions and classes of a file, and the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef) and "Protocol" not in {getattr(b, "id", "") for b in node.bases}:
                yield from (m for m in node.body if isinstance(m, FUNCTIONS) and not m.name.startswith("_"))


def test_everything_public_has_a_docstring():
    def silent(path: Path) -> list[str]:
        tree = tree_of(path)
        nameless = [] if ast.get_docstring(tree) or not tree.body else ["the file itself"]
        return nameless + [n.name for n in public(tree) if not ast.get_docstring(n) and n.name not in SAID_BY_TORCH]

    assert not offenders(PACKAGE, silent)


def test_every_dependency_is_used_and_every_import_is_declared():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {NAMES.get(n, n) for n in (re.split(r"[<>=]", line)[0] for line in project["dependencies"])}
    extras = {
        NAMES.get(n, n)
        for lines in project["optional-dependencies"].values()
        for n in (re.split(r"[<>=]", line)[0] for line in lines)
    }
    used = set().union(*(imported(list(ast.walk(tree_of(path)))) for path in PACKAGE))
    used -= {*sys.stdlib_module_names, "nearfar", ""}
    assert declared - used == set(), "declared, but nothing imports it"
    assert used - declared - extras - {"triton"} == set(), "imported, but not declared"  # triton comes with CUDA torch


@pytest.mark.parametrize("name", ["core", "oracle"])
def test_I4_constraints_are_exact_and_come_from_the_registry(name):
    wanted = [line for line in (REPOSITORY / "constraints" / f"{name}.txt").read_text().splitlines() if line[:1] != "#"]
    assert len(wanted) > 20
    assert not [line for line in wanted if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]


def test_I5_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = (
        path
        for path in (REPOSITORY / "nearfar").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc")
    )
    assert inside == {path.relative_to(REPOSITORY).as_posix() for path in files}


def test_readme_commands_and_methods_exist():
    readme = REPOSITORY / "README.md"
    if not readme.exists():
        pytest.skip("no README.md")
    text = readme.read_text()
    targets = set(re.findall(r"^([\w-]+)(?: [\w-]+)*:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    targets |= {"test", "test-all", "oracle"}
    asked = set(re.findall(r"\bmake ([a-z][\w-]+)", text))
    assert {"demo", "test"} <= asked <= targets
    missing = [name for name in re.findall(r"\]\(([^)#:]+)\)", text) if not (REPOSITORY / name).exists()]
    assert not missing, "links to files that are not there"


def test_the_index_of_the_docs_lists_every_page_and_links_nowhere_else():
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"index.md"}
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", text_of(REPOSITORY / "docs" / "index.md")))
    assert linked == pages
