# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.kmeans import nearest
from helpers.bits import assert_same_array_bits
from reference import canonical

RNG = np.random.default_rng(11)
X = RNG.normal(size=(70, 5)).astype(np.float32)
C = RNG.normal(size=(12, 5)).astype(np.float32)
GROUPS = np.array([4, -2, 7])[RNG.integers(0, 3, 70)]
CENTROID_GROUPS = np.array([7, 4, 4, -2, 7, -2, 4, 7, 9, -2, 9, 4])


def _by_hand(x: Any, c: Any, allowed: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Every centroid by distance, and the distances, in float64."""
    x, c = np.asarray(x, np.float64), np.asarray(c, np.float64)
    distance = np.sqrt(((x[:, None] - c[None]) ** 2).sum(axis=2))
    if allowed is not None:
        distance[~allowed] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize("n_nearest", [1, 2, 12])
@pytest.mark.sanitize
def test_nearest_and_their_euclidean_distances(n_nearest: int) -> None:
    order, distance = _by_hand(X, C)
    found, found_distance = ddkern.assign(X, C, n_nearest=n_nearest, return_distance=True)
    columns: Any = 0 if n_nearest == 1 else slice(n_nearest)
    assert_same_array_bits(found, order[:, columns], "assignment")
    assert found_distance.dtype == np.float64
    np.testing.assert_allclose(found_distance, distance[:, columns], rtol=1e-12)


def test_assignment_alone() -> None:
    assert_same_array_bits(ddkern.assign(X, C), _by_hand(X, C)[0][:, 0], "assignment")


@pytest.mark.sanitize
def test_groups_see_their_own_centroids() -> None:
    order, distance = _by_hand(X, C, GROUPS[:, None] == CENTROID_GROUPS[None])
    found, found_distance = ddkern.assign(
        X, C, groups=GROUPS, centroid_groups=CENTROID_GROUPS, n_nearest=3, return_distance=True
    )
    assert_same_array_bits(found, order[:, :3], "assignment")
    np.testing.assert_allclose(found_distance, distance[:, :3], rtol=1e-12)


def test_batch_compares_items_with_their_own() -> None:
    x, c = X.reshape(2, 35, 5), C.reshape(2, 6, 5)
    found = ddkern.assign(x, c, batch_dims=1, n_nearest=2)
    assert found.shape == (2, 35, 2)
    for i in range(2):
        assert_same_array_bits(found[i], _by_hand(x[i], c[i])[0][:, :2], "assignment")


def test_ties_go_to_the_lowest_row() -> None:
    x = np.array([[0.0], [5.0]])
    c = np.array([[1.0], [-1.0], [1.0], [9.0]])
    assert ddkern.assign(x, c, n_nearest=4).tolist() == [[0, 1, 2, 3], [0, 2, 3, 1]]
    grouped = ddkern.assign(x, c, groups=[8, 8], centroid_groups=[9, 8, 8, 8], n_nearest=2)
    assert grouped.tolist() == [[1, 2], [2, 3]]


def test_assignments_of_quantize_come_back() -> None:
    q = ddkern.quantize(X, 3, groups=GROUPS, random_state=0)
    again = ddkern.assign(X, q.centroids, groups=GROUPS, centroid_groups=q.groups)
    assert_same_array_bits(again, q.assignment, "assignment")


def test_rows_may_lack_groups_of_the_centroids() -> None:
    found = ddkern.assign(X[:3], C, groups=[9, 9, 9], centroid_groups=CENTROID_GROUPS)
    assert set(found.tolist()) <= {8, 10}


# Rounded to float32 these two are equal, and even in float64 their squared distances to (1, 1) are:
# the second is nearer by exact arithmetic only.
FINE = np.array([[1.0 + 2**-40, 0.0], [1.0 - 2**-41, 0.0]])


@pytest.mark.parametrize("max_memory", [None, 1, 100])
@pytest.mark.sanitize
def test_fine_centroids_are_not_rounded(max_memory: int | None) -> None:
    x = np.ones((50, 2), np.float32)
    found, distance = ddkern.assign(x, FINE, return_distance=True, max_memory=max_memory)
    assert (found == 1).all()
    assert distance == pytest.approx(np.sqrt(1 + 2**-82), rel=1e-15)


@pytest.mark.parametrize("max_memory", [None, 1])
def test_fine_centroids_with_groups_and_batches(max_memory: int | None) -> None:
    fine = C + RNG.normal(size=C.shape) * 1e-12
    order, distance = _by_hand(X, fine, GROUPS[:, None] == CENTROID_GROUPS[None])
    found, found_distance = ddkern.assign(
        X,
        fine,
        groups=GROUPS,
        centroid_groups=CENTROID_GROUPS,
        n_nearest=2,
        return_distance=True,
        max_memory=max_memory,
    )
    assert_same_array_bits(found, order[:, :2], "assignment")
    np.testing.assert_allclose(found_distance, distance[:, :2], rtol=1e-12)
    x, c = X.reshape(2, 35, 5), fine.reshape(2, 6, 5)
    batch = ddkern.assign(x, c, batch_dims=1, max_memory=max_memory)
    for i in range(2):
        assert_same_array_bits(batch[i], _by_hand(x[i], c[i])[0][:, 0], "assignment")


def test_converted_rows_and_kernels_share_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, parts = 800, []
    core_assign = nearest._core.assign

    def record(**arguments: Any) -> Any:
        parts.append((arguments["x"].nbytes, arguments["max_memory"]))
        return core_assign(**arguments)

    monkeypatch.setattr(nearest._core, "assign", record)
    ddkern.assign(X, C.astype(np.float64) + 1e-12, max_memory=budget)
    assert len(parts) == 7
    assert all(rows + workspace <= budget for rows, workspace in parts)


def test_coarse_centroids_need_no_copy_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise AssertionError("rows were converted")

    monkeypatch.setattr(nearest, "_assign_upcast", fail)
    found = ddkern.assign(X, C.astype(np.float64))
    assert_same_array_bits(found, ddkern.assign(X, C), "assignment")


def test_centroids_of_another_type() -> None:
    x = RNG.integers(0, 255, (20, 3), dtype=np.uint8)
    c = RNG.integers(0, 255, (4, 3))
    assert_same_array_bits(ddkern.assign(x, c), _by_hand(x, c)[0][:, 0], "assignment")
    wide = x.astype(np.float64) / 3
    found = ddkern.assign(wide, c.astype(np.float32))
    assert_same_array_bits(found, _by_hand(wide, c)[0][:, 0], "assignment")


def test_torch_in_torch_out() -> None:
    torch = pytest.importorskip("torch")
    found, distance = ddkern.assign(torch.from_numpy(X), C, return_distance=True)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.int64
    assert distance.dtype == torch.float64
    assert_same_array_bits(found.numpy(), ddkern.assign(X, C), "assignment")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": GROUPS}, "groups is given without centroid_groups"),
        ({"centroid_groups": CENTROID_GROUPS}, "centroid_groups is given without groups"),
        (
            {"groups": GROUPS + 1, "centroid_groups": CENTROID_GROUPS},
            "centroid_groups has no centroid of groups -1, 5 and 8, which occurs in groups",
        ),
        ({"groups": GROUPS, "centroid_groups": [1, 2]}, r"centroid_groups has shape \(2,\)"),
        ({"centroids": C[:, :4]}, r"centroids has shape \(12, 4\); .* must be \(k, 5\)"),
        ({"centroids": C[0]}, r"centroids has shape \(5,\)"),
        ({"centroids": C[:0]}, r"centroids has shape \(0, 5\); .* with k >= 1"),
        ({"centroids": np.full((2, 5), np.nan)}, "centroids holds NaN or infinity in row 0"),
        (
            {"x": X.reshape(2, 35, 5), "centroids": C.reshape(3, 4, 5), "batch_dims": 1},
            r"centroids has shape \(3, 4, 5\); .* must be \(2, k, 5\)",
        ),
        ({"n_nearest": 0}, "n_nearest=0;"),
        ({"n_nearest": 13}, "n_nearest=13, but group 0 has 12 centroids"),
        (
            {"groups": GROUPS, "centroid_groups": CENTROID_GROUPS, "n_nearest": 4},
            "n_nearest=4, but group -2 has 3 centroids",
        ),
        ({"x": X[:0]}, r"x has shape \(0, 5\), which is empty"),
        ({"n_threads": 0}, "n_threads=0;"),
        ({"max_memory": 0}, "max_memory=0;"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ddkern.assign(**{"x": X, "centroids": C, **options})


def test_rows_that_are_not_finite() -> None:
    x = X.copy()
    x[33, 2] = np.nan
    with pytest.raises(ValueError, match=r"x holds NaN or infinity in row 33\b"):
        ddkern.assign(x, C)


def _sq_distance(x: np.ndarray, c: np.ndarray) -> Fraction:
    return sum(
        ((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, c, strict=True)),
        Fraction(0),
    )


def _root(squared: Fraction) -> float:
    """The square root of a number of any magnitude: taken in units in which it is near 1."""
    half = (squared.numerator.bit_length() - squared.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(squared / Fraction(4) ** half), half)


# Their squares leave float64, on both sides; and rows whose large features agree.
EXTREMES = {
    "huge": ([[1e160, -3e160, 2e160]], [[2e160, 1e160, 0.0], [-1e200, 0.0, 0.0]]),
    "tiny": ([[1e-170, 2e-170, -1e-170]], [[0.0, 1e-170, 1e-170], [3e-170, 0.0, 0.0]]),
    "denormal centroids": ([[0.5, -2.0, 1.0]], [[5e-324, 5e-324, 5e-324], [5e-324, 0.0, 0.0]]),
    "all denormal": ([[1e-240, 0.0, 5e-324]], [[1e-240, 0.0, 1e-323], [1e-240, 5e-324, 0.0]]),
    "huge centroids": ([[1.0, 2.0, 3.0]], [[1.7e308, 0.0, 0.0], [-1e308, 1e308, 0.0]]),
    "huge rows, tiny centroids": ([[1e200, 0.0, 0.0]], [[1e-300, 0.0, 0.0], [0.0, 5e-324, 0.0]]),
    "one large feature shared": ([[1.0, 1e-200, 0.0]], [[1.0, 3e-200, 0.0], [1.0, 1e-200, 1e-190]]),
    "large and shared": ([[1e160, 1e-160, 0.0]], [[1e160, 3e-160, 0.0], [1e160, 0.0, 2e-160]]),
    "equal": ([[1e-200, 1e-200, 1e-200]], [[1e-200, 1e-200, 1e-200], [1e200, 0.0, 0.0]]),
}


@pytest.mark.parametrize(("x", "c"), EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("n_nearest", [1, 2])
@pytest.mark.sanitize
def test_distances_of_any_magnitude(x: Any, c: Any, n_nearest: int) -> None:
    x, c = np.array(x), np.array(c)
    squared = [_sq_distance(x[0], point) for point in c]
    order = sorted(range(len(c)), key=lambda k: squared[k])[:n_nearest]
    found, distance = ddkern.assign(x, c, n_nearest=n_nearest, return_distance=True)
    assert found.reshape(-1).tolist() == order
    expected = [_root(squared[k]) for k in order]
    np.testing.assert_allclose(distance.reshape(-1), expected, rtol=1e-15)
    at_its_level = canonical.euclidean_distances(x, c[order])
    assert_same_array_bits(distance.reshape(-1), at_its_level, "distance")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_are_those_of_the_numerics(isa: str, dtype: Any) -> None:
    x, c = (RNG.normal(size=(9, 67)).astype(dtype) for _ in range(2))
    x[3], c[3] = c[3], c[5]
    if dtype == np.float64:
        x[5:] *= 1e-170
        c[5:] *= 1e-170
        x[7, 11], c[7, 11] = 1e150, -1e200
    found, distance = ddkern.assign(x, c, n_nearest=9, return_distance=True)
    for row, order, own in zip(x, found, distance, strict=True):
        assert_same_array_bits(own, canonical.euclidean_distances(row, c[order]), "distance")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-140, -60, 0, 60, 120])
def test_distances_scale_with_powers_of_two(dtype: Any, exponent: int) -> None:
    x, c = (np.float32(values).astype(dtype) for values in (np.round(X, 2), np.round(C, 2)))
    _, distance = ddkern.assign(x, c, return_distance=True)
    _, scaled = ddkern.assign(
        np.ldexp(x, exponent).astype(dtype),
        np.ldexp(c, exponent).astype(dtype),
        return_distance=True,
    )
    if dtype == np.float64 or exponent > -100:  # below, float32 keeps fewer digits
        assert_same_array_bits(scaled, np.ldexp(distance, exponent), "distance")
    if dtype == np.float64:
        far = np.ldexp(x, 5 * exponent), np.ldexp(c, 5 * exponent)
        _, scaled = ddkern.assign(*far, return_distance=True)
        assert_same_array_bits(scaled, np.ldexp(distance, 5 * exponent), "distance")
