# SPDX-License-Identifier: Apache-2.0
"""Documents name files that exist; source files state their licence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SPDX = "SPDX-License-Identifier: Apache-2.0"
SOURCE_FOLDERS = (".ci", "bench", "csrc", "python", "tests")
SOURCE_SUFFIXES = {".py", ".pyi", ".h", ".cpp", ".cu", ".cuh"}
SOURCES_BY_NAME = (".ci/run", ".clang-format", "CMakeLists.txt", "Makefile", "pyproject.toml")

# A name with one of these endings is taken for a file of the repository wherever it stands.
FILE_NAME = re.compile(r"\w[\w.-]*\.(cpp|cu|cuh|h|md|py|pyi|sh|toml|txt|cff)")
PATH = re.compile(r"[\w.*-]+(/[\w.*-]+)*/?")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")

# Written by commands that the documents explain, so they need not exist in a clean checkout.
GENERATED = ("build", ".venv")


def documents(root: Path) -> list[Path]:
    """Every document of the repository for readers."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def paths_named_in(text: str, root: Path) -> list[str]:
    """Spans in backticks, and link targets, that can only mean a path of the repository.

    A span is one when it has no blanks and no placeholder such as ``<op>``, and either its first
    part is in the root folder or it ends like a source file or document. ``a/b`` that fits neither
    (``float32/float64``) is prose.
    """
    prose = FENCE.sub("", text)
    named = []
    for span in INLINE.findall(prose):
        first, _, rest = span.partition("/")
        if PATH.fullmatch(span) and (
            FILE_NAME.fullmatch(span.rsplit("/", 1)[-1]) or (rest and (root / first).is_dir())
        ):
            named.append(span)
    links = [link for link in LINK.findall(prose) if not re.match(r"[a-z]+:", link)]
    return named + links


def missing_paths(root: Path) -> list[str]:
    """Paths that a document names and that do not exist, as one line of text each."""
    found = []
    for document in documents(root):
        text = document.read_text(encoding="utf-8")
        for name in paths_named_in(text, root):
            if name.split("/")[0] in GENERATED:
                continue
            if not _exists(name, document.parent, root):
                found.append(f"{document.relative_to(root)} names {name}")
    return found


def _exists(name: str, folder: Path, root: Path) -> bool:
    if any(True for base in (root, folder) for _ in base.glob(name.rstrip("/"))):
        return True
    # A bare file name, or the end of a path, counts where exactly such a file lies in the sources.
    return any(True for base in SOURCE_FOLDERS for _ in (root / base).glob(f"**/{name}"))


def without_licence(root: Path) -> list[str]:
    """Source files that do not carry the licence line where it belongs: first, or after ``#!``."""
    files = [root / name for name in SOURCES_BY_NAME if (root / name).exists()]
    for folder in SOURCE_FOLDERS:
        files += [path for path in (root / folder).rglob("*") if path.suffix in SOURCE_SUFFIXES]
    found = []
    for path in sorted(files):
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines and lines[0].startswith("#!"):
            lines = lines[1:]
        if not lines or not lines[0].endswith(SPDX):
            found.append(str(path.relative_to(root)))
    return found


def test_documents_name_files_that_exist() -> None:
    if not (ROOT / ".ci" / "run").is_file():
        pytest.skip("a source distribution leaves out some of the files that documents name")
    assert missing_paths(ROOT) == []


def test_what_make_calls_is_in_the_source_distribution() -> None:
    listed = re.search(
        r"^sdist\.exclude = \[(.*)\]$", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE
    )
    assert listed is not None
    excluded = re.findall(r'"([^"]+)"', listed[1])
    called = set(re.findall(r"\.ci/[\w.]+", (ROOT / "Makefile").read_text("utf-8")))
    assert ".ci/requirements.py" in called
    for name in called:
        assert not any(name == left_out or name.startswith(f"{left_out}/") for left_out in excluded)


def test_scan_sees_the_documents() -> None:
    names = {path.name for path in documents(ROOT)}
    assert {"README.md", "CONTRIBUTING.md", "architecture.md", "numerics.md"} <= names
    numerics = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    assert "tests/reference/canonical.py" in paths_named_in(numerics, ROOT)


def versions(root: Path) -> dict[str, str]:
    """The version that each file states which does not read it from the package."""
    patterns = {
        "python/ddkern/__init__.py": r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": r"^## .*?(\d+\.\d+\.[\w.]+)",
    }
    found = {}
    for name, pattern in patterns.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        found[name] = match[1] if match else "none"
    return found


def test_documents_state_the_version_of_the_package() -> None:
    stated = versions(ROOT)
    assert set(stated.values()) == {stated["python/ddkern/__init__.py"]}
    assert "none" not in stated.values()


def test_different_version_is_caught(tmp_path: Path) -> None:
    (tmp_path / "python" / "ddkern").mkdir(parents=True)
    package = tmp_path / "python" / "ddkern" / "__init__.py"
    package.write_text('__version__ = "1.2.0rc1"\n', encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.1.0\n", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Soon\n", encoding="utf-8")
    assert list(versions(tmp_path).values()) == ["1.2.0rc1", "1.1.0", "none"]


def test_sources_state_their_licence() -> None:
    assert without_licence(ROOT) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("csrc/core/isa.h", "docs/map.md", "python/a.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"// {SPDX}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "`csrc/gone.h`",
        "`csrc/core/gone`",
        "`gone.py`",
        "`docs/gone.md`",
        "`csrc/*_gone.cpp`",
        "[map](docs/gone.md#part)",
    ],
)
def test_dangling_path_is_caught(tree: Path, text: str) -> None:
    (tree / "README.md").write_text(f"See {text} for more.\n", encoding="utf-8")
    assert len(missing_paths(tree)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "`csrc/core/`",
        "`isa.h` and `core/isa.h`",
        "`csrc/**/*.h`",
        "[map](docs/map.md#part)",
        "[web](https://example.org/gone.md)",
        "`float32/float64`, `csrc/<op>/<op>.h`, `make test`, `q.npz`",
        "\n```\ncp csrc/gone.h elsewhere\n```\n",
        "`build/asan`",
    ],
)
def test_resolvable_path_passes(tree: Path, text: str) -> None:
    (tree / "README.md").write_text(f"See {text} for more.\n", encoding="utf-8")
    assert missing_paths(tree) == []


@pytest.mark.parametrize("content", ["", "int x;\n", f"int x;\n// {SPDX}\n"])
def test_missing_licence_is_caught(tree: Path, content: str) -> None:
    (tree / "csrc" / "core" / "bare.h").write_text(content, encoding="utf-8")
    assert without_licence(tree) == ["csrc/core/bare.h"]


def test_licence_after_shebang_passes(tree: Path) -> None:
    (tree / "python" / "b.py").write_text(f"#!/usr/bin/env python3\n# {SPDX}\n", encoding="utf-8")
    assert without_licence(tree) == []
