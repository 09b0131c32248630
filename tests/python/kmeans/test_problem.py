# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern.arrays import to_host
from ddkern.kmeans import problem as p

X = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
IDS = np.array([5, -3, 5, 9, -3, 5])


def _grouped() -> p.Problem:
    return p.parse_problem(X, IDS, 0)


def _batched() -> p.Problem:
    return p.parse_problem(X.reshape(2, 3, 4), None, 1)


def test_groups_in_any_order() -> None:
    partition = _grouped().partition
    assert partition.ids.tolist() == [-3, 5, 9]
    assert partition.offsets.tolist() == [0, 2, 5, 6]
    assert partition.order is not None
    assert partition.order.tolist() == [1, 4, 0, 2, 5, 3]
    assert partition.counts.tolist() == [2, 3, 1]


def test_sorted_groups_need_no_order() -> None:
    partition = p.parse_problem(X, np.sort(IDS), 0).partition
    assert partition.order is None
    assert partition.offsets.tolist() == [0, 2, 5, 6]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8", "i8"])
def test_group_ids_of_any_integer_type(dtype: str) -> None:
    partition = p.parse_problem(X, np.array([3, 3, 1, 1, 2, 2], dtype), 0).partition
    assert partition.ids.dtype == np.int64
    assert partition.ids.tolist() == [1, 2, 3]


def test_extreme_group_ids() -> None:
    low, high = -(2**63), 2**63 - 1
    partition = p.parse_problem(X, [high, low, high, low, 0, 0], 0).partition
    assert partition.ids.tolist() == [low, 0, high]


def test_without_groups() -> None:
    whole = p.parse_problem(X, None, 0)
    assert whole.partition.ids.tolist() == [0]
    assert whole.partition.offsets.tolist() == [0, 6]
    assert (whole.n_rows, whole.n_groups, whole.n_features) == (6, 1, 4)
    assert whole.rows_shape == (6,)
    assert whole.feature_shape == (2, 2)


def test_batch() -> None:
    batch = _batched()
    assert batch.partition.ids.tolist() == [0, 0]
    assert batch.partition.offsets.tolist() == [0, 3, 6]
    assert batch.rows_shape == (2, 3)
    assert batch.per_centroid_shape(np.array([2, 2])) == (2, 2)


def test_scalar_points() -> None:
    scalars = p.parse_problem(np.arange(5.0), None, 0)
    assert scalars.feature_shape == ()
    assert scalars.n_features == 1
    assert scalars.x.values.shape == (5, 1)


def test_global_rows_follow_the_groups() -> None:
    # Each row's centroid within its group, then that group's first centroid added.
    within = np.array([[0], [1], [1], [0], [0], [2]])
    rows = _grouped().global_rows(within, np.array([0, 2, 5]))
    assert rows.ravel().tolist() == [2, 1, 3, 5, 0, 4]


@pytest.mark.parametrize(
    ("x", "groups", "batch_dims", "error", "message"),
    [
        (X, None, 2, ValueError, "batch_dims=2; it must be 0 or 1"),
        (X, None, True, TypeError, "batch_dims=True is a bool"),
        (X, IDS, 1, ValueError, "groups cannot be combined with batch_dims=1"),
        (np.float32(3), None, 0, ValueError, r"x has shape \(\); with batch_dims=0"),
        (np.zeros(3), None, 1, ValueError, r"x has shape \(3,\); with batch_dims=1"),
        (np.zeros((0, 3)), None, 0, ValueError, r"x has shape \(0, 3\), which is empty"),
        (np.zeros((3, 0)), None, 0, ValueError, r"x has shape \(3, 0\), which is empty"),
        (np.zeros((2, 0, 3)), None, 1, ValueError, r"x has shape \(2, 0, 3\), which is empty"),
        (np.zeros((0, 2, 3)), None, 1, ValueError, r"x has shape \(0, 2, 3\), which is empty"),
        (X, IDS[:-1], 0, ValueError, r"groups has shape \(5,\); .* shape \(6,\)"),
        (X, IDS[:, None], 0, ValueError, r"groups has shape \(6, 1\)"),
        (X, IDS.astype(float), 0, TypeError, "groups has dtype float64; it must hold one integer"),
        (X, IDS > 0, 0, TypeError, "groups has dtype bool"),
        (X, np.full(6, 2**63, np.uint64), 0, ValueError, "groups holds 9223372036854775808"),
        (X.astype(complex), None, 0, TypeError, "x has dtype complex128"),
    ],
)
def test_wrong_data(
    x: Any, groups: Any, batch_dims: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        p.parse_problem(x, groups, batch_dims)


@pytest.mark.parametrize(
    "k",
    [2, {9: 2, -3: 2, 5: 2}, [2, 2, 2], (2, 2, 2), np.array([2, 2, 2], np.uint8), np.int16(2)],
)
def test_k_in_every_form(k: Any) -> None:
    assert p.parse_k(k, _grouped()).tolist() == [2, 2, 2]


def test_k_follows_the_ids_not_the_rows() -> None:
    assert p.parse_k({5: 3, 9: 1, -3: 2}, _grouped()).tolist() == [2, 3, 1]
    assert p.parse_k([2, 3, 1], _grouped()).tolist() == [2, 3, 1]


def test_mapping_without_groups_names_group_0() -> None:
    assert p.parse_k({0: 3}, p.parse_problem(X, None, 0)).tolist() == [3]


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, "k=0; it must be an integer of at least 1"),
        (2.0, TypeError, r"k=2\.0 is a float"),
        (True, TypeError, "k=True is a bool"),
        (None, TypeError, "k=None is a NoneType"),
        ("auto", TypeError, "k='auto' is a str"),
        ({5: 2}, ValueError, "k has no entry for groups -3 and 9"),
        ({-3: 1, 5: 1, 9: 1, 8: 1}, ValueError, "k has an entry for group 8, without rows in x"),
        ({-3: 1, 5: 0, 9: 1}, ValueError, r"k\[5\]=0; it must be"),
        ({-3: 1, 5: 1.5, 9: 1}, TypeError, r"k\[5\]=1\.5 is a float"),
        ({"a": 1}, TypeError, "a key of k='a' is a str"),
        ([2, 2], ValueError, r"k has shape \(2,\); .* each of the 3 groups"),
        ([[2, 2, 2]], ValueError, r"k has shape \(1, 3\)"),
        ([2.0, 2.0, 2.0], TypeError, "k has dtype float64"),
        ([2, 0, 1], ValueError, r"k\[1\]=0; it must be"),
    ],
)
def test_wrong_k(k: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        p.parse_k(k, _grouped())


@pytest.mark.parametrize("k", [{0: 2}, [2, 2]])
def test_batch_takes_one_k(k: Any) -> None:
    with pytest.raises(TypeError, match=r"^k is a .*with batch_dims=1 it must be one integer"):
        p.parse_k(k, _batched())


def test_sample_weight_becomes_float64() -> None:
    weight = p.parse_sample_weight(np.array([0, 1, 2, 3, 4, 5], np.uint8), _grouped())
    assert weight is not None
    assert weight.dtype == np.float64
    assert weight.tolist() == [0, 1, 2, 3, 4, 5]
    assert p.parse_sample_weight(None, _grouped()) is None


def test_sample_weight_of_a_batch_is_flattened() -> None:
    weight = p.parse_sample_weight([[1, 2, 3], [4, 5, 6]], _batched())
    assert weight is not None
    assert weight.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, 1, 1], r"sample_weight has shape \(3,\); .*in shape \(6,\)"),
        (np.ones((6, 1)), r"sample_weight has shape \(6, 1\)"),
        ([1, 1, -2, 1, 1, 1], r"sample_weight\[2\] is -2\.0; weights must be finite and at least"),
        ([1, 1, 1, np.nan, 1, 1], r"sample_weight\[3\] is nan"),
        ([1, 1, 1, 1, 1, np.inf], r"sample_weight\[5\] is inf"),
    ],
)
def test_wrong_weight(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        p.parse_sample_weight(weight, _grouped())


def test_wrong_weight_in_a_batch_is_located_by_item() -> None:
    with pytest.raises(ValueError, match=r"^sample_weight\[\(1, 2\)\] is -1\.0"):
        p.parse_sample_weight([[1, 1, 1], [1, 1, -1]], _batched())


def test_more_centroids_than_rows() -> None:
    with pytest.raises(ValueError, match="^k=2 for group 9, which has 1 rows; k must not exceed"):
        p.require_rows(np.array([2, 2, 2]), None, _grouped())
    with pytest.raises(ValueError, match="^k=4 for item 0, which has 3 rows"):
        p.require_rows(np.array([4, 4]), None, _batched())


def test_rows_of_weight_0_do_not_count() -> None:
    weight = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    p.require_rows(np.array([1, 2, 1]), weight, _grouped())
    with pytest.raises(
        ValueError, match="^k=2 for group -3, which has 1 rows of positive weight; k must not"
    ):
        p.require_rows(np.array([2, 2, 1]), weight, _grouped())


def test_group_without_weight() -> None:
    weight = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="^sample_weight is 0 for every row of group 9"):
        p.require_rows(np.array([1, 1, 1]), weight, _grouped())


def test_one_seed_for_all_groups() -> None:
    recorded, seeds = p.parse_random_state(2**64 - 1, _grouped())
    assert recorded == 2**64 - 1
    assert seeds.tolist() == [2**64 - 1] * 3


@pytest.mark.parametrize("state", [[7, 2**64 - 1], np.array([7, 8], np.int32), (1, 2)])
def test_one_seed_an_item(state: Any) -> None:
    recorded, seeds = p.parse_random_state(state, _batched())
    assert isinstance(recorded, np.ndarray)
    assert recorded.dtype == np.uint64
    assert recorded.tolist() == seeds.tolist() == list(state)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ([1, 2, 3], ValueError, r"random_state has shape \(3,\).*each of the 2 items"),
        ([1, 2.0], TypeError, r"random_state\[1\]=2\.0 is a float"),
        ([1, -2], ValueError, r"random_state\[1\]=-2; a seed must be an integer"),
        ([1, None], TypeError, r"random_state\[1\]=None is a NoneType"),
        (np.array([1.0, 2.0]), TypeError, "random_state has dtype float64"),
        (np.array([1, -2]), ValueError, "random_state holds -2; seeds must lie in"),
        (-1, ValueError, "random_state=-1;"),
        ("seed", TypeError, "random_state='seed' is a str"),
    ],
)
def test_wrong_random_state(state: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        p.parse_random_state(state, _batched())


def test_array_of_seeds_needs_a_batch() -> None:
    with pytest.raises(TypeError, match=r"^random_state is an array, which needs batch_dims=1"):
        p.parse_random_state([1, 2, 3], _grouped())


def test_init_is_rounded_to_the_type_of_the_centroids() -> None:
    init = p.parse_init_centroids(np.full((3, 2, 2), 0.1), _grouped(), np.array([1, 1, 1]))
    assert init.dtype == np.float32
    assert init.shape == (3, 4)
    assert init.flags.c_contiguous
    assert (init == np.float32(0.1)).all()


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (np.zeros((2, 2, 2)), r"init has shape \(2, 2, 2\); .* \(3, 2, 2\)"),
        (np.zeros((3, 4)), r"init has shape \(3, 4\)"),
        (
            np.array([0, 0, np.nan])[:, None, None] + np.zeros((3, 2, 2)),
            "init holds NaN.* in row 2",
        ),
        (np.array([0, 1e300, 0])[:, None, None] + np.zeros((3, 2, 2)), "init holds NaN.*row 1.*32"),
    ],
)
def test_wrong_init(init: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        p.parse_init_centroids(init, _grouped(), np.array([1, 1, 1]))


def _parse_centroids(values: Any, dtype: str) -> np.ndarray:
    return p.parse_centroids(to_host(values, "centroids"), np.dtype(dtype), 2)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.full((1, 2), 0.5), "f4", "f4"),
        (np.full((1, 2), 0.1), "f4", "f8"),
        (np.full((1, 2), 1e300), "f4", "f8"),
        (np.full((1, 2), 0.1, np.float32), "f4", "f4"),
        (np.full((1, 2), 0.1, np.float32), "f8", "f8"),
        (np.full((1, 2), 2**24 + 1), "f4", "f8"),
        (np.full((1, 2), 7), "f4", "f4"),
    ],
)
def test_centroids_are_never_rounded(values: Any, dtype: str, expected: str) -> None:
    parsed = _parse_centroids(values, dtype)
    assert parsed.dtype == expected
    assert (parsed == values).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 0], [0, np.inf]]), "centroids holds NaN or infinity in row 1"),
        (np.array([[2**53 + 1, 0]]), "centroids hold 9007199254740993"),
        (np.array([[-(2**63), 0]]), "centroids hold 9223372036854775808"),
    ],
)
def test_wrong_centroids(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        _parse_centroids(values, "f8")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([3], "group 3"),
        ([3, 5], "groups 3 and 5"),
        ([1, 2, 3], "groups 1, 2 and 3"),
        (range(8), "groups 0, 1, 2, 3, 4 and 3 more"),
    ],
)
def test_lists_of_groups(ids: Any, expected: str) -> None:
    assert p.name_groups("group", np.array(ids)) == expected
