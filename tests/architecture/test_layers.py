# SPDX-License-Identifier: Apache-2.0
"""Python modules import only from layers below their own; siblings do not know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "ddkern"

# The first name below ``ddkern`` decides the layer. A module imports from lower numbers alone; what
# lies inside one name (all of ``ddkern.kmeans``) is one unit and may import itself.
LAYERS = {
    "_core": -1,
    "_cuda": -1,
    "checks": 0,
    "errors": 0,
    "files": 0,
    "typing": 0,
    "arrays": 1,
    "backend": 1,
    "kernel_calls": 1,
    "optional": 1,
    "progress": 1,
    "kmeans": 2,
    "layers": 2,
    "losses": 2,
    "updates": 2,
    "augment": 3,
    "data": 3,
    "estimators": 3,
    "models": 3,
    "training": 4,
    "evaluate": 5,
    "experts": 5,
    "latents": 5,
    "distill": 6,
    "priors": 6,
    "report": 7,
    "__init__": 7,
    "__main__": 8,
    "cli": 8,
    "demo": 9,
}

# Above the layer that wraps the extension modules nobody calls them.
HIGHEST_LAYER_ON_EXTENSIONS = 2

# Re-exported names would make every module depend on every other; the version alone is everybody's.
FROM_ROOT = {"__version__"}


def imports_of(path: Path, package: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted target, without the leading ``ddkern``, of every import of the package.

    ``from a import b`` counts as ``a.b`` where that is a module, and as a name of ``a`` otherwise,
    which is reported as ``("", "b")`` for the root package.
    """
    home = ("ddkern", *path.relative_to(package).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "ddkern" or alias.name.startswith("ddkern."):
                    yield node.lineno, tuple(alias.name.split(".")[1:]) or ("", "*")
        elif isinstance(node, ast.ImportFrom):
            base = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = (*home[: len(home) - node.level], *base)
            if base[:1] != ("ddkern",):
                continue
            for alias in node.names:
                target = base[1:]
                yield node.lineno, target or _target_in_root(alias.name, package)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and str(node.args[0].value).startswith("ddkern.")
        ):
            yield node.lineno, tuple(str(node.args[0].value).split(".")[1:])


def _target_in_root(name: str, package: Path) -> tuple[str, ...]:
    is_module = name in LAYERS or (package / name).is_dir() or (package / f"{name}.py").is_file()
    return (name,) if is_module else ("", name)


def violations(package: Path) -> list[str]:
    """Every forbidden import below ``package``, as one line of text each."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        unit = relative.with_suffix("").parts[0]
        if unit not in LAYERS:
            found.append(f"{relative}: '{unit}' has no layer")
            continue
        for line, target in imports_of(path, package):
            problem = _problem(unit, target)
            if problem:
                found.append(f"{relative}:{line}: {problem}")
    return found


def _problem(unit: str, target: tuple[str, ...]) -> str | None:
    layer, name = LAYERS[unit], target[0]
    if name == "":
        if target[1] in FROM_ROOT or layer > LAYERS["__init__"]:
            return None
        return f"'{unit}' takes '{target[1]}' from the root package instead of from its module"
    if name not in LAYERS:
        return f"'{unit}' imports 'ddkern.{name}', which has no layer"
    if name == unit:
        return None
    if LAYERS[name] < 0 and layer > HIGHEST_LAYER_ON_EXTENSIONS:
        return f"'{unit}' [{layer}] calls the extension module '{name}'"
    if LAYERS[name] >= layer:
        return f"'{unit}' [{layer}] imports '{name}' [{LAYERS[name]}]"
    return None


def test_package_imports_downward_only() -> None:
    assert violations(PACKAGE) == []


def test_scan_sees_the_package() -> None:
    assert {line for _, line in imports_of(PACKAGE / "backend.py", PACKAGE)} & {("_core",)}


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("errors.py", "import ddkern.backend", "'errors' [0] imports 'backend' [1]"),
        ("errors.py", "from ddkern import backend", "'errors' [0] imports 'backend' [1]"),
        ("errors.py", "from ddkern.backend import config", "'errors' [0] imports 'backend' [1]"),
        ("errors.py", "from . import backend", "'errors' [0] imports 'backend' [1]"),
        ("errors.py", "from .backend import config", "'errors' [0] imports 'backend' [1]"),
        ("arrays.py", "import ddkern.backend as b", "'arrays' [1] imports 'backend' [1]"),
        ("kmeans/a.py", "from ..report import png", "'kmeans' [2] imports 'report' [7]"),
        ("kmeans/a.py", "def f():\n    import ddkern.report", "'kmeans' [2] imports 'report' [7]"),
        (
            "kmeans/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ddkern.demo import x",
            "'kmeans' [2] imports 'demo' [9]",
        ),
        (
            "kmeans/a.py",
            "import importlib\nimportlib.import_module('ddkern.report')",
            "'kmeans' [2] imports 'report' [7]",
        ),
        ("report/a.py", "from ddkern import _core", "calls the extension module '_core'"),
        ("kmeans/a.py", "from ddkern import quantize", "takes 'quantize' from the root package"),
        ("kmeans/a.py", "import ddkern", "takes '*' from the root package"),
        ("kmeans/a.py", "import ddkern.magic", "imports 'ddkern.magic', which has no layer"),
        ("models/a.py", "from ddkern.augment import DSA", "'models' [3] imports 'augment' [3]"),
        ("magic.py", "", "'magic' has no layer"),
    ],
)
def test_forbidden_import_is_caught(tmp_path: Path, module: str, source: str, fault: str) -> None:
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text(source, encoding="utf-8")
    assert [line for line in violations(tmp_path) if fault in line]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("backend.py", "from ddkern import __version__, _core, errors"),
        (
            "kmeans/a.py",
            "from ddkern.kmeans import b\nfrom . import c\nfrom ..backend import config",
        ),
        ("demo.py", "import ddkern\nfrom ddkern import quantize\nfrom ddkern.report import png"),
        ("kmeans/a.py", "import numpy.typing\nfrom typing import Any\nimport ddkernel"),
    ],
)
def test_allowed_import_passes(tmp_path: Path, module: str, source: str) -> None:
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text(source, encoding="utf-8")
    assert violations(tmp_path) == []
