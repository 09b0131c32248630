# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.kmeans.fit import ALGORITHMS, INIT_METHODS
from helpers.bits import assert_same_array_bits
from helpers.isa import LEVELS, forced_isa
from helpers.problems import problems
from reference import canonical

RNG = np.random.default_rng(5)
X = RNG.normal(size=(80, 2, 3)).astype(np.float32)
GROUPS = np.array([4, -2])[RNG.integers(0, 2, 80)]


@pytest.mark.parametrize("init", INIT_METHODS)
@pytest.mark.sanitize
def test_seeds_are_rows_of_their_group(init: Any) -> None:
    seeds = ddkern.seed_centroids(X, [3, 5], groups=GROUPS, init=init, random_state=1)
    assert seeds.groups.tolist() == [-2] * 3 + [4] * 5
    assert seeds.indices.dtype == np.int64
    assert len(set(seeds.indices.tolist())) == 8
    assert_same_array_bits(seeds.centroids, X[seeds.indices], "centroids")
    assert_same_array_bits(GROUPS[seeds.indices], seeds.groups, "groups")
    assert seeds.random_state == 1


def test_potential_is_what_the_seeds_leave() -> None:
    weight = RNG.integers(0, 4, 80)
    seeds = ddkern.seed_centroids(X, 4, groups=GROUPS, sample_weight=weight, random_state=1)
    assert seeds.potential.shape == (2,)
    for g, group in enumerate((-2, 4)):
        rows = group == GROUPS
        _, distance = ddkern.assign(
            X[rows], seeds.centroids[seeds.groups == group], return_distance=True
        )
        left = (weight[rows] * distance**2).sum()
        assert seeds.potential[g] == pytest.approx(left, rel=1e-4)


def test_batch_indices_count_within_the_item() -> None:
    items = X.reshape(4, 20, 6)
    seeds = ddkern.seed_centroids(items, 3, batch_dims=1, random_state=[1, 2, 3, 4])
    assert seeds.centroids.shape == (4, 3, 6)
    assert seeds.indices.shape == seeds.groups.shape == (4, 3)
    for i, item in enumerate(items):
        assert_same_array_bits(seeds.centroids[i], item[seeds.indices[i]], "centroids")
        alone = ddkern.seed_centroids(item, 3, random_state=i + 1)
        assert_same_array_bits(seeds.indices[i], alone.indices, "indices")


@pytest.mark.parametrize("init", INIT_METHODS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm_changes_nothing(init: Any, algorithm: Any) -> None:
    seeds = ddkern.seed_centroids(X, 6, init=init, algorithm=algorithm, random_state=2)
    auto = ddkern.seed_centroids(X, 6, init=init, random_state=2)
    assert_same_array_bits(seeds.indices, auto.indices, "indices")
    assert_same_array_bits(seeds.potential, auto.potential, "potential")


@pytest.mark.parametrize("init", INIT_METHODS)
def test_no_value_twice_while_there_is_another(init: Any) -> None:
    x = np.repeat([1.0, 2.0, 3.0, 4.0], [100, 1, 1, 1])
    for seed in range(20):
        seeds = ddkern.seed_centroids(x, 4, init=init, random_state=seed)
        assert sorted(seeds.centroids.tolist()) == [1, 2, 3, 4]


@pytest.mark.parametrize("init", INIT_METHODS)
def test_rows_of_weight_0_are_never_drawn(init: Any) -> None:
    weight = np.arange(80) % 3 == 0
    for seed in range(10):
        seeds = ddkern.seed_centroids(X, 9, sample_weight=weight, init=init, random_state=seed)
        assert weight[seeds.indices].all()


def test_torch_in_torch_out() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X).bfloat16()
    seeds = ddkern.seed_centroids(x, 3, random_state=0)
    assert seeds.centroids.dtype == torch.float32
    assert torch.equal(seeds.centroids, x[seeds.indices].float())


def test_seed_is_drawn_and_recorded() -> None:
    drawn = ddkern.seed_centroids(X, 5)
    again = ddkern.seed_centroids(X, 5, random_state=drawn.random_state)
    assert_same_array_bits(drawn.indices, again.indices, "indices")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"init": "kmeans"}, ValueError, "init='kmeans'; it must be one of 'k-means"),
        ({"init": X[:3]}, TypeError, "init is a ndarray; it must be one of"),
        ({"algorithm": "fast"}, ValueError, "algorithm='fast';"),
        ({"k": 81}, ValueError, "k=81 for group 0"),
        ({"sample_weight": [1]}, ValueError, "sample_weight has shape"),
        ({"random_state": 2**64}, ValueError, "random_state=18446744073709551616;"),
        ({"progress": "yes"}, TypeError, "progress='yes'"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        ddkern.seed_centroids(**{"x": X, "k": 3, **options})


@pytest.mark.parametrize("level", LEVELS)
def test_misleading_scores_change_no_seed(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Screening may only drop rows that the canonical distance would not bring nearer."""
    with forced_isa(level):
        for number, problem in enumerate(problems("float32")[::5]):
            if problem.x.ndim != 2 or len(problem.x) < 2:
                continue
            found = []
            for mislead in ("", "closer"):
                monkeypatch.setenv("DDKERN_DEBUG_MISLEAD", mislead)
                found.append(
                    ddkern.seed_centroids(
                        problem.rows,
                        min(12, len(problem.x)),
                        random_state=number,
                        n_threads=1,
                        algorithm="streaming",
                    )
                )
            np.testing.assert_array_equal(found[0].indices, found[1].indices, err_msg=problem.name)
            assert_same_array_bits(found[0].potential, found[1].potential, problem.name)


@pytest.mark.parametrize("level", LEVELS)
def test_distances_in_the_last_bits_of_float32(level: str) -> None:
    """Once two large rows are seeds, the others differ by less than the squares of float32 hold."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(256, 8)) * 2.0**-73).astype(np.float32)
    x[1], x[2] = 1.0, -1.0  # not among the rows that the bytes are laid out for
    for seed in range(20):
        with forced_isa(level):
            found = ddkern.seed_centroids(x, 32, random_state=seed, algorithm="streaming")
        with forced_isa("base"):
            expected = ddkern.seed_centroids(x, 32, random_state=seed, algorithm="streaming")
        np.testing.assert_array_equal(found.indices, expected.indices)
        assert_same_array_bits(found.potential, expected.potential, f"{seed=}")


def pairs_on_a_tie() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of two features whose dot is half a step from a float32, but for a hair.

    The first features multiply to a float32 s in [1, 2), the second ones to 2^-24, or one last bit
    of float64 beside it, and a rest that float64 cannot hold beside s. Rounding twice, or to odd in
    the wrong direction, goes to the wrong side of the tie.
    """
    rng = np.random.default_rng(0)
    first, second = [], []
    for beside in (-1, 0, 1):  # last bits of the sum in float64
        target = 2**46 + beside * 2**18
        a = rng.integers(2**22, 2**24, 20000)
        b = np.rint(target / a).astype(np.int64)
        rest = a * b - target
        (good,) = np.nonzero((rest != 0) & (np.abs(rest) < 2**16) & (b < 2**24))
        for i in good[:60]:
            s = 1 + int(rng.integers(0, 2**23)) * 2.0**-23
            sign = rng.choice([-1.0, 1.0])
            first.append([1.0, a[i] * 2.0**-35])
            second.append([s, sign * b[i] * 2.0**-35])
    return np.array(first, np.float32), np.array(second, np.float32)


@pytest.mark.sanitize
def test_dots_of_distances_round_once(isa: str) -> None:
    p, q = pairs_on_a_tie()
    # With their negatives, so that the centre is 0 and rows stay as they are, but for a factor. Two
    # seeds, so that what goes wrong is not made up for by a negative.
    x = np.stack([p, q, -p, -q], axis=1)
    seeds = ddkern.seed_centroids(x, 2, batch_dims=1, random_state=0, algorithm="streaming")

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return canonical.chain_dot(a, b).astype(np.float64)

    near = np.full(x.shape[:2], np.inf)
    for c in range(2):
        seed = seeds.centroids[:, c : c + 1]
        near = np.minimum(near, np.maximum(dot(x, x) - 2 * dot(x, seed) + dot(seed, seed), 0))
    assert_same_array_bits(seeds.potential, near.sum(1), isa)
    twice = p[:, 0] * q[:, 0] + p[:, 1].astype(np.float64) * q[:, 1]
    assert np.mean(twice.astype(np.float32) != canonical.chain_dot(p, q)) > 0.1
