# SPDX-License-Identifier: Apache-2.0
"""Principal components in one pass are those of the singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from ddkern.latents.principal_components import check_n_components, principal_components
from helpers.bits import assert_same_array_bits


def _rows(n: int, d: int, seed: int, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        offset
        + rng.normal(size=(n, d)) * 2.0 ** -np.arange(d) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    )


@pytest.mark.parametrize("part", [1, 3, 100])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_components_are_those_of_the_singular_value_decomposition(
    part: int, offset: float, dtype: type
) -> None:
    x = _rows(40, 6, 0, offset).astype(dtype)
    mean, components = principal_components((x[i : i + part] for i in range(0, 40, part)), 4)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-12, atol=1e-12)
    expected = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)[2][:4].T
    expected *= np.sign(expected[np.abs(expected).argmax(axis=0), np.arange(4)])
    np.testing.assert_allclose(components, expected, atol=1e-8)


def test_sign_does_not_depend_on_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    x = _rows(30, 5, 1)
    expected = principal_components([x], 3)[1]
    assert (expected[np.abs(expected).argmax(axis=0), np.arange(3)] > 0).all()
    solve = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (solve(a)[0], -solve(a)[1]))
    assert_same_array_bits(principal_components([x], 3)[1], expected, "components")


def test_too_many_components() -> None:
    with pytest.raises(ValueError, match="n_components=4; it must be at most 3 for 4 images of 6"):
        principal_components([_rows(4, 6, 0)], 4)
    with pytest.raises(ValueError, match="n_components=7; it must be at most 6 for 9 images of 6"):
        check_n_components(7, 9, 6)
    with pytest.raises(ValueError, match="n_components=0; it must be an integer of at least 1"):
        check_n_components(0, 9, 6)
    assert check_n_components(np.int64(6), 9, 6) == 6
