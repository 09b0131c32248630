# SPDX-License-Identifier: Apache-2.0
"""The plain twin of docs/numerics.md against known answers, exact arithmetic and scikit-learn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from reference import canonical


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    """The vectors published with the generator (Random123, kat_vectors)."""
    assert canonical.philox(counter, key) == expected


def nearest_float32(value: Fraction) -> np.float32:
    """Round a fraction to float32, ties to even, by comparing it with its neighbours."""
    guess = np.float32(float(value))
    neighbours = {
        np.nextafter(guess, np.float32(-np.inf)),
        guess,
        np.nextafter(guess, np.float32(np.inf)),
    }
    return min(
        neighbours,
        key=lambda v: (abs(Fraction(float(v)) - value), int(np.float32(v).view(np.int32)) & 1),
    )


def test_fma32_rounds_once() -> None:
    """Against fractions, where rounding twice is wrong and where the result is subnormal."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=4000).astype(np.float32)
    b = rng.normal(size=4000).astype(np.float32)
    c = (rng.normal(size=4000) * 2.0 ** rng.integers(-60, 60, 4000)).astype(np.float32)
    # Half a step of the product above a float32, and the addend a hair that breaks the tie.
    a[:1000] = (1 + rng.integers(0, 2**11, 1000) * 2.0**-11).astype(np.float32)
    b[:1000] = np.float32(1 + 2.0**-12 + 2.0**-13)
    c[:1000] = (rng.choice([-1, 1], 1000) * 2.0 ** rng.integers(-110, -50, 1000)).astype(np.float32)
    a[1000:1500] *= np.float32(2.0**-75)
    b[1000:1500] *= np.float32(2.0**-72)
    c[1000:1500] = (rng.normal(size=500) * 2.0**-146).astype(np.float32)
    got = canonical.fma32(a, b, c)
    expected = [
        nearest_float32(Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r)))
        for p, q, r in zip(a, b, c, strict=True)
    ]
    np.testing.assert_array_equal(got, np.array(expected, np.float32))
    rounded_twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert np.any(rounded_twice != got), "the cases do not tell one rounding from two"


def test_norm2_adds_in_sixteen_lanes() -> None:
    r = np.random.default_rng(2).normal(size=37)
    lanes = [0.0] * 16
    for j, value in enumerate(r):
        lanes[j % 16] += float(value) * float(value)
    for half in (8, 4, 2, 1):
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    assert canonical.norm2(r) == lanes[0]


def test_draw_never_takes_a_row_of_mass_zero() -> None:
    masses = np.array([0, 3, 0, 5, 0], np.int64)
    drawn = [canonical.Stream(9, -1, 0).draw(masses, step, 0) for step in range(400)]
    assert set(drawn) == {1, 3}
    assert abs(drawn.count(3) / 400 - 5 / 8) < 0.1


def test_streams_differ_by_seed_group_restart_step_and_trial() -> None:
    draws = {
        canonical.Stream(seed, group, restart).uniform(step, trial)
        for seed in (0, 1 << 40)
        for group in (0, -1)
        for restart in (0, 1)
        for step in (0, 1)
        for trial in (0, 1)
    }
    assert len(draws) == 32


def test_integer_weights_are_repetition() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(30, 5)).astype(np.float32)
    counts = rng.integers(0, 6, 30)
    weighted = canonical.fit(x, 4, sample_weight=counts.astype(np.float64), seed=3)
    repeated = canonical.fit(np.repeat(x, counts, axis=0), 4, seed=3)
    assert weighted.seeds is not None
    assert repeated.seeds is not None
    np.testing.assert_array_equal(weighted.centroids, repeated.centroids)
    np.testing.assert_array_equal(weighted.weights, repeated.weights)
    np.testing.assert_array_equal(x[weighted.seeds], np.repeat(x, counts, axis=0)[repeated.seeds])
    np.testing.assert_array_equal(weighted.distortion_history, repeated.distortion_history)
    assert weighted.inertia == repeated.inertia


def test_centroid_of_equal_rows_is_that_row() -> None:
    x = np.repeat(np.array([[0.1, 1e10], [0.3, -1e-10]], np.float32), 3, axis=0)
    result = canonical.fit(x, 2)
    assert {row.tobytes() for row in result.centroids} == {x[0].tobytes(), x[3].tobytes()}
    assert result.distortion == 0.0


def test_empty_cells_are_repaired() -> None:
    x = np.array([[0.0], [1.0], [10.0], [11.0], [20.0]], np.float32)
    far = np.array([[0.0], [1e6], [2e6]], np.float32)
    result = canonical.fit(x, 3, init=far, max_iter=1)
    assert result.cells_reseeded == 2
    assert np.all(result.weights > 0)


def test_more_centroids_than_distinct_rows_leaves_empty_cells() -> None:
    x = np.array([[1.0], [1.0], [1.0], [2.0]], np.float32)
    result = canonical.fit(x, 4)
    assert np.count_nonzero(result.weights) == 2
    assert result.distortion == 0.0
    assert sorted(set(result.centroids[:, 0])) == [1.0, 2.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_scikit_learn(weighted: bool) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(150, 8)) + 4 * rng.integers(0, 3, (150, 1))).astype(np.float64)
    weight = rng.random(150) if weighted else None
    ours = canonical.fit(x, 5, sample_weight=weight, tol=0.0)
    assert ours.seeds is not None
    theirs = cluster.KMeans(5, init=x[ours.seeds], n_init=1, tol=0.0).fit(x, sample_weight=weight)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)
    np.testing.assert_allclose(ours.distortion_history[-1], ours.distortion, rtol=1e-5)
    np.testing.assert_array_equal(ours.assignment, theirs.labels_)
