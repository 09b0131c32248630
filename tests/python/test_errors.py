# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ddkern import errors


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ConvergenceWarning", UserWarning),
        ("CudaError", RuntimeError),
        ("EmptyCellWarning", UserWarning),
        ("UnsupportedError", RuntimeError),
    ],
)
def test_classes_can_be_caught_by_their_standard_base(name: str, base: type) -> None:
    assert issubclass(getattr(errors, name), base)
