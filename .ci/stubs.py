# SPDX-License-Identifier: Apache-2.0
"""Write the type stubs of the extension modules, or check that those in the tree are current.

The stubs are made by pybind11-stubgen from the modules that this interpreter imports, then given
their licence line and the formatting of the repository. A module that this build does not have
(``_cuda`` without nvcc) keeps the stub that is there.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "ddkern"
MODULES = ("_core", "_cuda")
HEADER = "# SPDX-License-Identifier: Apache-2.0\n"


def generate(module: str) -> str:
    """Text of the stub of ``ddkern.<module>``."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "pybind11_stubgen", f"ddkern.{module}"),
                *("--output-dir", folder, "--exit-code"),
            ],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        text = (Path(folder) / "ddkern" / f"{module}.pyi").read_text(encoding="utf-8")
    # pybind11 cannot name what its dictionaries hold; all of ours map names to values.
    text = re.sub(r"\bdict\b(?!\[)", "dict[str, typing.Any]", text)
    # A value belongs to one build; the stub declares the type.
    text = re.sub(r"^(\w+: (?:str|bool|int|float)) = .*$", r"\1", text, flags=re.MULTILINE)
    return format_stub(HEADER + text)


def format_stub(text: str) -> str:
    """``text`` with sorted imports, formatted as the repository is."""
    name = str(PACKAGE / "_core.pyi")
    ruff = (sys.executable, "-m", "ruff")
    for arguments in (
        ("check", "--quiet", "--exit-zero", "--fix", "--select", "I,F401,UP,FA"),
        ("format", "--quiet"),
    ):
        command = [*ruff, *arguments, "--stdin-filename", name, "-"]
        text = subprocess.run(
            command, cwd=ROOT, input=text, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    return text


def main() -> int:
    """Write or compare every stub; the exit status is 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check

    stale = False
    for module in MODULES:
        path = PACKAGE / f"{module}.pyi"
        if importlib.util.find_spec(f"ddkern.{module}") is None:
            print(f"{path.name}: not checked, this build has no ddkern.{module}")
            continue
        new = generate(module)
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old == new:
            print(f"{path.name}: current")
        elif check:
            stale = True
            print(f"{path.name}: differs from the built module; run `make stubs`")
            difference = difflib.unified_diff(
                old.splitlines(), new.splitlines(), "in the tree", "as built", lineterm=""
            )
            print("\n".join(difference))
        else:
            path.write_text(new, encoding="utf-8")
            print(f"{path.name}: written")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
