# SPDX-License-Identifier: Apache-2.0
"""What README.md shows is what its program prints: by contract, the same bits on every machine."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_output_of_the_example_is_real() -> None:
    pytest.importorskip("sklearn")
    text = README.read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert found is not None, "README.md has no example followed by its output"
    program, shown = found.groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, str(README), "exec"), {})  # noqa: S102 - our own document
    assert printed.getvalue() == shown
