# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddkern import demo, quantize


def test_prints_the_table_and_draws_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    image = pytest.importorskip("PIL.Image")
    assert demo.main(["--out", str(tmp_path / "new")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines[1:11]] == list(range(10))
    for line in lines[1:11]:
        _, rows, distortion, w2, *_ = line.split()
        assert 174 <= int(rows) <= 183
        assert float(w2) ** 2 == pytest.approx(float(distortion), rel=1e-4)
    with image.open(tmp_path / "new" / "digits_centroids.png") as picture:
        picture.load()
        assert picture.width > 10 * 64
        assert picture.height > 10 * 64


def test_table_shows_the_numbers_of_the_result() -> None:
    x = np.array([[0.0], [2.0], [2.0], [2.0], [7.0], [7.0]])
    groups = [3, 3, 3, 3, 5, 5]
    result = quantize(x, {3: 2, 5: 1}, groups=groups, random_state=0)
    _, three, five, *_ = demo.format_table(result, groups).splitlines()
    assert three.split() == ["3", "4", "0.0000", "0.0000", "25.00", "%", "75.00", "%", "1"]
    assert five.split() == ["5", "2", "0.0000", "0.0000", "100.00", "%", "100.00", "%", "1"]


def test_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec

    def hide_pillow(name: str, *arguments: Any) -> Any:
        return None if name == "PIL" else find_spec(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", hide_pillow)
    assert demo.main([]) == 1
    assert re.search(r"^The demo needs .*pillow: pip install .*pillow$", capsys.readouterr().out)
