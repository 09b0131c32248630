# SPDX-License-Identifier: Apache-2.0
"""Measures of quantizations against values by hand, a linear program, and plain numpy."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddkern import quantize
from ddkern.errors import UnsupportedError
from ddkern.evaluate import QuantizationMeasures, measure_quantization
from ddkern.evaluate import measures as module
from ddkern.progress import Progress

# No test needs POT unless it asks for it: bounds are there without.
BOUNDED: dict[str, Any] = {"transport_limit": 0}


@pytest.fixture
def exact() -> dict[str, Any]:
    """Options that have every W2 computed exactly."""
    pytest.importorskip("ot")
    return {"transport_limit": 1 << 22}


def values_of(measures: QuantizationMeasures) -> dict[str, float]:
    """Return the figures of the only group."""
    (group,) = measures.as_dict()["groups"]
    return group


def assert_same(a: QuantizationMeasures, b: QuantizationMeasures, rtol: float = 0) -> None:
    for field in fields(QuantizationMeasures):
        found, expected = (getattr(measures, field.name) for measures in (a, b))
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=rtol, err_msg=field.name)


def make_points(n: int = 200, d: int = 3, k: int = 6, seed: int = 0) -> tuple[NDArray[Any], ...]:
    """Return points, their quantization by k-means, and the masses of the cells."""
    points = np.random.default_rng(seed).gamma(1.0, size=(n, d))
    found = quantize(points, k, random_state=0)
    return points, found.centroids, found.weights


# --------------------------------------------------------------------------------- by hand
def test_a_line_with_two_atoms(exact: dict[str, Any]) -> None:
    """Cells {0, 1, 2} and {9}; with equal weights the point at 2 goes to the atom at 9."""
    points, atoms = np.array([0.0, 1, 2, 9]), np.array([1.0, 9])
    found = values_of(measure_quantization(points, atoms, np.array([3.0, 1]), **exact))
    uniform = math.sqrt((1 + 0 + 49 + 0) / 4)
    assert found == {
        "group": 0,
        "n_points": 4,
        "n_atoms": 2,
        "distortion": 0.5,
        "w2_lower": pytest.approx(math.sqrt(0.5)),
        "w2_upper": pytest.approx(math.sqrt(0.5)),
        "w2_uniform_lower": pytest.approx(uniform),
        "w2_uniform_upper": pytest.approx(uniform),
        "gain_lower": pytest.approx(1 - math.sqrt(0.5) / uniform),
        "gain_upper": pytest.approx(1 - math.sqrt(0.5) / uniform),
        "stationarity": 0,
        "mass_min": 0.25,
        "mass_max": 0.75,
        "effective_atoms": 1 / (0.25**2 + 0.75**2),
        "empty_share": 0,
    }


def test_weights_that_are_no_masses(exact: dict[str, Any]) -> None:
    """Half the mass of the point at 2 goes to the atom at 9."""
    points, atoms = np.array([0.0, 1, 2, 9]), np.array([1.0, 9])
    found = values_of(measure_quantization(points, atoms, np.array([0.625, 0.375]), **exact))
    assert found["distortion"] == 0.5
    assert found["w2_lower"] == pytest.approx(math.sqrt((1 + 0 + 0.5 + 24.5 + 0) / 4))
    assert found["w2_upper"] == found["w2_lower"]
    # Masses are those of the cells all the same.
    assert (found["mass_min"], found["mass_max"]) == (0.25, 0.75)
    assert found["effective_atoms"] == 1 / (0.25**2 + 0.75**2)


def test_atoms_that_are_no_means() -> None:
    """Cells {0, 2} and {9} whose means, 1 and 9, are 1 and 3 away from their atoms."""
    found = values_of(
        measure_quantization(
            np.array([0.0, 2, 9]), np.array([2.0, 12]), np.array([2, 1]), **BOUNDED
        )
    )
    assert found["distortion"] == pytest.approx((4 + 0 + 9) / 3)
    residual = (2 / 3) * 1**2 + (1 / 3) * 3**2
    assert found["stationarity"] == pytest.approx(math.sqrt(residual / found["distortion"]))
    # Moving the atoms to the means removes that part of the distortion.
    moved = values_of(
        measure_quantization(np.array([0.0, 2, 9]), np.array([1.0, 9]), np.array([2, 1]), **BOUNDED)
    )
    assert moved["stationarity"] == 0
    assert moved["distortion"] == pytest.approx(found["distortion"] - residual)


def test_an_atom_on_every_point() -> None:
    points = np.random.default_rng(0).normal(size=(5, 2))
    found = values_of(measure_quantization(points, points[::-1], np.ones(5), **BOUNDED))
    for name in ("distortion", "w2_upper", "w2_uniform_upper", "stationarity"):
        assert found[name] == 0, name
    assert (found["gain_lower"], found["gain_upper"]) == (0, 0)
    assert found["effective_atoms"] == pytest.approx(5)


def test_weights_that_make_a_distance_where_there_was_none() -> None:
    points = np.array([[0.0], [1.0]])
    measures = measure_quantization(points, points, np.array([1.0, 3.0]), **BOUNDED)
    assert measures.gain_lower.tolist() == [-math.inf]
    assert values_of(measures)["gain_lower"] is None
    assert measures.summary.gain_lower == -math.inf
    json.dumps(measures.as_dict(), allow_nan=False)


def test_empty_cells() -> None:
    points = np.array([[0.0], [1.0], [10.0]])
    atoms = np.array([[0.5], [10.0], [50.0], [10.0]])
    found = values_of(measure_quantization(points, atoms, np.array([2, 1, 0, 0]), **BOUNDED))
    assert found["empty_share"] == 0.5
    assert found["mass_min"] == 0
    assert found["effective_atoms"] == pytest.approx(1 / (4 / 9 + 1 / 9))
    # The weights are the masses, of which the atoms without points have none.
    assert found["w2_upper"] == found["w2_lower"] == pytest.approx(math.sqrt(0.5 / 3))
    assert found["w2_uniform_lower"] > 10


# ------------------------------------------------------------------------------- properties
def least_distance(points: NDArray[Any], atoms: NDArray[Any], weight: NDArray[Any]) -> float:
    """Return W2 as the optimum of a linear program over all plans."""
    scipy_optimize = pytest.importorskip("scipy.optimize")
    n, k = len(points), len(atoms)
    cost = np.square(points[:, None] - atoms).sum(axis=2)
    rows, columns = np.kron(np.eye(n), np.ones(k)), np.kron(np.ones(n), np.eye(k))
    sums = np.append(np.full(n, 1 / n), weight / weight.sum())
    found = scipy_optimize.linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=sums)
    assert found.success
    return math.sqrt(found.fun)


@pytest.mark.parametrize("seed", range(6))
def test_linear_program_agrees(exact: dict[str, Any], seed: int) -> None:
    """Atoms and weights have nothing to do with the points, as those of images may not."""
    rng = np.random.default_rng(seed)
    n, k, d = rng.integers(2, 20), rng.integers(1, 6), rng.integers(1, 4)
    points, atoms = rng.normal(size=(n, d)), rng.normal(1, 2, size=(k, d))
    weight = rng.uniform(size=k)
    found = values_of(measure_quantization(points, atoms, weight, **exact))
    w2, uniform = (least_distance(points, atoms, w) for w in (weight, np.ones(k)))
    assert found["w2_lower"] == found["w2_upper"] == pytest.approx(w2, rel=1e-7)
    assert found["w2_uniform_lower"] == found["w2_uniform_upper"]
    assert found["w2_uniform_lower"] == pytest.approx(uniform, rel=1e-7)
    assert found["gain_lower"] == found["gain_upper"] == pytest.approx(1 - w2 / uniform, abs=1e-6)
    bounded = values_of(measure_quantization(points, atoms, weight, **BOUNDED))
    for name, value in (("w2", w2), ("w2_uniform", uniform)):
        assert bounded[f"{name}_lower"] <= value * (1 + 1e-7)
        assert bounded[f"{name}_upper"] >= value * (1 - 1e-7)
        assert bounded[f"{name}_upper"] <= 1.02 * bounded[f"{name}_lower"]
    assert bounded["gain_lower"] <= 1 - w2 / uniform + 1e-6
    assert bounded["gain_upper"] >= 1 - w2 / uniform - 1e-6


def test_masses_as_weights_need_no_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of the distortion is W2, in float64 and rounded to float32."""
    points, atoms, mass = make_points()
    expected = least_distance(points, atoms, mass)
    asked: list[NDArray[Any]] = []
    bound = module.bound_transport

    def remember(cost: NDArray[Any], weight: NDArray[Any]) -> Any:
        asked.append(weight)
        return bound(cost, weight)

    monkeypatch.setattr(module, "bound_transport", remember)
    for weight in (mass, 6 * mass, mass.astype(np.float32)):
        found = values_of(measure_quantization(points, atoms, weight, **BOUNDED))
        assert found["w2_lower"] == found["w2_upper"] == math.sqrt(found["distortion"])
        assert found["w2_lower"] == pytest.approx(expected, rel=1e-6)
        assert found["w2_uniform_lower"] > found["w2_lower"]
        assert found["stationarity"] < 1e-12
    assert [weight.tolist() for weight in asked] == [[1 / 6] * 6] * 3


def test_one_point_more_is_another_weight() -> None:
    points, atoms, mass = make_points()
    counts = np.round(200 * mass)
    counts[0] -= 1
    counts[1] += 1
    found = values_of(measure_quantization(points, atoms, counts, **BOUNDED))
    assert found["w2_lower"] > math.sqrt(found["distortion"])


def test_equal_masses_gain_nothing() -> None:
    points = np.array([[0.0], [1], [10], [11]])
    found = values_of(
        measure_quantization(points, np.array([[0.5], [10.5]]), np.ones(2), **BOUNDED)
    )
    assert found["w2_lower"] == found["w2_uniform_upper"] == 0.5
    assert found["gain_lower"] == found["gain_upper"] == 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_offset_and_scale(dtype: str, exact: dict[str, Any]) -> None:
    """Integers, so that the moved and scaled points are exact."""
    rng = np.random.default_rng(0)
    points, atoms = rng.integers(0, 100, (60, 4)), rng.integers(0, 100, (5, 4))
    weight = rng.uniform(size=5)
    base = values_of(measure_quantization(points.astype(dtype), atoms, weight, **exact))
    offset = {"float64": 2.0**45, "float32": 2.0**23}[dtype]
    for scale in (1.0, 2.0**-60, 2.0**60):
        moved, moved_atoms = ((scale * (x + offset)).astype(dtype) for x in (points, atoms))
        found = values_of(measure_quantization(moved, moved_atoms, weight, **exact))
        assert found.pop("distortion") == base["distortion"] * scale**2
        for name, value in found.items():
            expected = base[name] * (scale if name.startswith("w2") else 1)
            assert value == pytest.approx(expected, rel=1e-12), name


def test_squares_that_float64_cannot_hold() -> None:
    points, atoms, mass = make_points(50)
    base = measure_quantization(points, atoms, mass, **BOUNDED)
    for scale in (2.0**-700, 2.0**600):
        found = measure_quantization(scale * points, scale * atoms, mass, **BOUNDED)
        assert found.w2_uniform_upper / scale == pytest.approx(base.w2_uniform_upper)
        assert found.w2_lower / scale == pytest.approx(base.w2_lower)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32"])
def test_types_of_points(dtype: str) -> None:
    rng = np.random.default_rng(0)
    points, atoms = rng.integers(0, 50, (40, 2, 3)), rng.normal(25, 9, (4, 2, 3))
    wide = measure_quantization(points.astype(np.float64), atoms, np.ones(4), **BOUNDED)
    assert_same(measure_quantization(points.astype(dtype), atoms, np.ones(4), **BOUNDED), wide)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    points, atoms, mass = make_points()
    given = (torch.from_numpy(array) for array in (points, atoms, mass))
    expected = measure_quantization(points, atoms, mass, **BOUNDED)
    assert_same(measure_quantization(*given, **BOUNDED), expected)
    half = torch.from_numpy(points).to(torch.bfloat16)
    expected = measure_quantization(half.to(torch.float64).numpy(), atoms, mass, **BOUNDED)
    assert_same(measure_quantization(half, atoms, mass, **BOUNDED), expected)


# ----------------------------------------------------------------------------------- groups
def make_groups() -> dict[str, Any]:
    """Return arguments with three groups of different sizes, whose rows are mixed."""
    rng = np.random.default_rng(3)
    groups = rng.permutation(np.repeat([7, -2, 30], [40, 5, 23]))
    owners = rng.permutation(np.repeat([7, -2, 30], [6, 1, 3]))
    return {
        "points": rng.normal(size=(68, 4)) * (1 + np.abs(groups))[:, None],
        "centroids": rng.normal(size=(10, 4)),
        "weights": rng.uniform(size=10),
        "groups": groups,
        "centroid_groups": owners,
    }


def alone(given: dict[str, Any], group: int) -> QuantizationMeasures:
    mine, own = given["groups"] == group, given["centroid_groups"] == group
    return measure_quantization(
        given["points"][mine],
        given["centroids"][own],
        given["weights"][own],
        groups=np.full(mine.sum(), group),
        centroid_groups=np.full(own.sum(), group),
        **BOUNDED,
    )


def test_groups_are_measured_each_for_itself() -> None:
    given = make_groups()
    measures = measure_quantization(**given, **BOUNDED)
    assert measures.groups.tolist() == [-2, 7, 30]
    assert measures.n_points.tolist() == [5, 40, 23]
    assert measures.n_atoms.tolist() == [1, 6, 3]
    parts = [alone(given, group) for group in (30, -2, 7)]
    assert_same(QuantizationMeasures.joined(parts), measures)
    order = np.argsort(given["groups"], kind="stable")
    given["points"], given["groups"] = given["points"][order], given["groups"][order]
    assert_same(measure_quantization(**given, **BOUNDED), measures)


def test_parts_of_a_group_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_groups()
    whole = measure_quantization(**given, **BOUNDED)
    for rows in (1, 7):
        monkeypatch.setattr(module, "_PART_BYTES", 8 * 6 * rows)
        assert_same(measure_quantization(**given, **BOUNDED), whole, rtol=1e-12)


def test_summary_is_that_of_all_groups() -> None:
    given = make_groups()
    measures = measure_quantization(**given, **BOUNDED)
    summary, n, k = measures.summary, measures.n_points, measures.n_atoms
    assert (summary.n_points, summary.n_atoms) == (68, 10)
    nearest, offsets, counts = np.empty(68), np.zeros((10, 4)), np.zeros(10)
    for row, group in enumerate(given["groups"]):
        own = np.flatnonzero(given["centroid_groups"] == group)
        difference = given["points"][row] - given["centroids"][own]
        least = np.square(difference).sum(axis=1)
        nearest[row] = least.min()
        offsets[own[least.argmin()]] += difference[least.argmin()]
        counts[own[least.argmin()]] += 1
    removed = np.square(offsets).sum(axis=1) / np.maximum(counts, 1)
    assert summary.distortion == pytest.approx(nearest.mean())
    for name in ("w2_lower", "w2_upper", "w2_uniform_lower", "w2_uniform_upper"):
        expected = math.sqrt(n @ getattr(measures, name) ** 2 / 68)
        assert getattr(summary, name) == pytest.approx(expected), name
    assert summary.gain_lower == 1 - summary.w2_upper / summary.w2_uniform_lower
    assert summary.gain_upper == 1 - summary.w2_lower / summary.w2_uniform_upper
    assert summary.stationarity == pytest.approx(math.sqrt(removed.sum() / nearest.sum()))
    assert summary.mass_min == measures.mass_min.min()
    assert summary.mass_max == measures.mass_max.max()
    assert summary.effective_atoms == pytest.approx(n @ measures.effective_atoms / 68)
    assert summary.empty_share == pytest.approx(np.mean(counts == 0))
    assert k @ measures.empty_share == pytest.approx(np.sum(counts == 0))


def test_summary_of_one_group_is_the_group() -> None:
    points, atoms, mass = make_points()
    measures = measure_quantization(points, atoms + 0.1, mass[::-1], **BOUNDED)
    group = values_of(measures)
    del group["group"]
    assert asdict(measures.summary) == pytest.approx(group, rel=1e-12)


def test_memory_map_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_groups()
    expected = measure_quantization(**given, **BOUNDED)
    np.save(tmp_path / "points.npy", given["points"])
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    sizes = []
    select = module.HostArray.select

    def watch(self: Any, index: Any) -> Any:
        part = select(self, index)
        if np.shares_memory(self.values, mapped):
            sizes.append(part.values.nbytes)
        return part

    monkeypatch.setattr(module.HostArray, "select", watch)
    monkeypatch.setattr(module, "_PART_BYTES", 8 * 6 * 9)
    given["points"] = mapped
    assert_same(measure_quantization(**given, **BOUNDED), expected, rtol=1e-12)
    assert max(sizes) <= 8 * 6 * 9 < mapped.nbytes / 4


def test_progress_counts_groups() -> None:
    seen: list[Progress] = []
    measure_quantization(**make_groups(), **BOUNDED, progress=seen.append)
    assert [(step.done, step.total, step.unit) for step in seen] == [
        (done, 3, "groups") for done in (1, 2, 3)
    ]


# ---------------------------------------------------------------------------------- records
def test_plain_values_and_back() -> None:
    measures = measure_quantization(**make_groups(), **BOUNDED)
    content = json.loads(json.dumps(measures.as_dict(), allow_nan=False))
    assert content["summary"] == asdict(measures.summary)
    assert [row["group"] for row in content["groups"]] == [-2, 7, 30]
    assert [row["gain_lower"] for row in content["groups"]] == measures.gain_lower.tolist()
    assert_same(QuantizationMeasures.from_dict(content), measures)


def without_an_entry(content: dict[str, Any]) -> Any:
    del content["groups"][1]["mass_min"]
    return content


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        lambda content: {**content, "format": "ddkern-evaluation"},
        lambda content: {**content, "format_version": 2},
        lambda content: {**content, "groups": []},
        lambda content: {**content, "groups": 3},
        lambda content: {**content, "groups": [{**content["groups"][0], "w2_lower": None}]},
        lambda content: {**content, "groups": [{**content["groups"][0], "n_atoms": 10**30}]},
        lambda content: {**content, "groups": [{**content["groups"][0], "w2_lower": [1, 2]}]},
        without_an_entry,
    ],
)
def test_other_records_are_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    content = measure_quantization(**make_groups(), **BOUNDED).as_dict()
    with pytest.raises(ValueError, match="not a record of measures of version 1"):
        QuantizationMeasures.from_dict(change(content))


def test_joined_takes_every_group_once() -> None:
    part = alone(make_groups(), 7)
    with pytest.raises(ValueError, match="group 7 is in two of the parts"):
        QuantizationMeasures.joined([part, part])
    with pytest.raises(ValueError, match="parts is empty"):
        QuantizationMeasures.joined([])


# ------------------------------------------------------------------------------------ limit
def test_limit_says_where_w2_is_exact(exact: dict[str, Any]) -> None:
    """The groups have 5, 240 and 69 pairs."""
    given = make_groups()
    measures = measure_quantization(**given, transport_limit=69)
    known = measures.w2_uniform_lower == measures.w2_uniform_upper
    assert known.tolist() == [True, False, True]
    everywhere = measure_quantization(**given)
    assert (everywhere.w2_lower == everywhere.w2_upper).all()


def test_without_pot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    given = make_groups()
    assert_same(measure_quantization(**given), measure_quantization(**given, **BOUNDED))
    # No group is so small.
    measure_quantization(**given, transport_limit=4)
    with pytest.raises(UnsupportedError, match=r"transport_limit=5 needs .* ot .*\[transport\]"):
        measure_quantization(**given, transport_limit=5)


def test_import_takes_numpy_alone() -> None:
    program = (
        "import sys, ddkern.evaluate, ddkern.evaluate.measures\n"
        "from ddkern.evaluate import loss_weight, measure_quantization\n"
        "print(*({'torch', 'ot', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


# ----------------------------------------------------------------------------------- errors
def test_nan_and_infinity_are_named() -> None:
    given = make_groups()
    given["points"][41, 2] = np.nan
    with pytest.raises(ValueError, match=r"points\[41\] holds NaN or infinity"):
        measure_quantization(**given, **BOUNDED)
    given = make_groups()
    given["centroids"][6, 0] = np.inf
    with pytest.raises(ValueError, match=r"centroids\[6\] holds NaN or infinity"):
        measure_quantization(**given, **BOUNDED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((0, 4))}, r"points has shape \(0, 4\)"),
        ({"points": np.float64(3)}, r"points has shape \(\)"),
        ({"centroids": np.zeros((10, 3))}, r"centroids has shape \(10, 3\); .* \(K, 4\)"),
        ({"centroids": np.zeros((0, 4))}, r"centroids has shape \(0, 4\)"),
        ({"centroids": np.float64(3)}, r"centroids has shape \(\)"),
        ({"weights": np.ones(9)}, r"weights has shape \(9,\); .* in shape \(10,\)"),
        ({"weights": np.ones((10, 1))}, r"weights has shape \(10, 1\)"),
        ({"weights": np.arange(10) - 1}, r"weights\[0\] is -1.0; weights must be finite"),
        ({"weights": np.full(10, np.nan)}, r"weights\[0\] is nan"),
        ({"weights": np.zeros(10)}, "weights are 0 for all centroids of groups -2, 7 and 30"),
        ({"groups": None}, "centroid_groups is given without groups"),
        ({"centroid_groups": None}, "groups is given without centroid_groups"),
        ({"groups": np.zeros(3, int)}, r"groups has shape \(3,\)"),
        ({"centroid_groups": np.zeros(3, int)}, r"centroid_groups has shape \(3,\)"),
        ({"centroid_groups": np.full(10, 7)}, "no centroids for groups -2 and 30"),
        ({"groups": np.full(68, 7)}, "no points for groups -2 and 30"),
        ({"transport_limit": -1}, "transport_limit=-1; it must be an integer of at least 0"),
    ],
)
def test_wrong_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_quantization(**{**make_groups(), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((68, 4), complex)}, "points has dtype complex128"),
        ({"groups": np.zeros(68)}, "groups has dtype float64"),
        ({"transport_limit": True}, "transport_limit=True is a bool"),
        ({"progress": 3}, "progress=3 is a int"),
    ],
)
def test_wrong_types(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        measure_quantization(**{**make_groups(), **changes})
