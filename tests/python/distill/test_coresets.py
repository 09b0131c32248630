# SPDX-License-Identifier: Apache-2.0
"""What holds for every coreset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import ddkern
from ddkern.data import DistilledSet, ImageDataset, Normalization, open_dataset
from ddkern.data.dataset import ArrayImages
from ddkern.distill import (
    Forgetting,
    Herding,
    KCenter,
    KMeansNearest,
    Method,
    PcaFeatures,
    Random,
    distill,
    make_method,
    method_names,
)
from ddkern.distill.features import Embed
from helpers.coresets import RAGGED, assert_coreset, dataset_of, make_dataset, rows_by_class
from helpers.distilled import assert_same_set

Maker = Callable[[ImageDataset, int], Method]

METHODS: dict[str, Maker] = {
    "forgetting": lambda dataset, ipc: Forgetting(
        ipc=ipc, scores=np.random.default_rng(0).integers(0, 3, len(dataset))
    ),
    "herding": lambda dataset, ipc: Herding(ipc=ipc),
    "k-center": lambda dataset, ipc: KCenter(ipc=ipc),
    "k-means": lambda dataset, ipc: KMeansNearest(ipc=ipc),
    "random": lambda dataset, ipc: Random(ipc=ipc),
}
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


def test_every_method_is_tested() -> None:
    elsewhere = ("d4m", "dc", "ddoq", "dm", "mtt", "whole")
    assert sorted((*METHODS, *elsewhere)) == list(method_names())
    for name, make in METHODS.items():
        assert make(make_dataset(), 1).name == name


@every_method
@pytest.mark.parametrize("ipc", [1, 2])
def test_ragged_classes(make: Maker, ipc: int) -> None:
    dataset = make_dataset(RAGGED)
    assert_coreset(distill(dataset, make(dataset, ipc), random_state=0), dataset, ipc)


@every_method
def test_rgb(make: Maker) -> None:
    dataset = make_dataset(RAGGED, (3, 4, 5))
    assert_coreset(distill(dataset, make(dataset, 2), random_state=0), dataset, 2)


@every_method
def test_classes_of_one_image(make: Maker) -> None:
    dataset = make_dataset((1, 3, 1))
    made = distill(dataset, make(dataset, 1), random_state=0)
    assert_coreset(made, dataset, 1)
    assert made.sample_weight.tolist() == [1, 1, 1]


@every_method
def test_whole_classes(make: Maker) -> None:
    dataset = make_dataset((5, 5, 5), (1, 5, 5))
    made = distill(dataset, make(dataset, 5), random_state=0)
    assert_coreset(made, dataset, 5)
    assert sorted(made.provenance.options["rows"]) == list(range(15))
    np.testing.assert_allclose(made.sample_weight, 1, rtol=1e-14)


@every_method
def test_too_many_images_per_class(make: Maker) -> None:
    dataset = make_dataset((7, 2, 12))
    with pytest.raises(
        ValueError, match=r"ipc=3, but class 1 \('class 1'\) of 'made' has 2 images; ipc must not"
    ):
        distill(dataset, make(dataset, 3), random_state=0)


@every_method
def test_too_many_images_are_noticed_before_any_is_read(make: Maker) -> None:
    class Unreadable:
        def read(self, rows: object) -> np.ndarray:
            raise AssertionError("an image was read")

        def name_row(self, row: int) -> str:
            return str(row)

    labels = np.array([0, 1, 1])
    dataset = ImageDataset("x", None, Unreadable(), np.arange(3), labels, ("a", "b"), (1, 2, 2))
    with pytest.raises(ValueError, match="ipc=2, but class 0"):
        distill(dataset, make(dataset, 2), random_state=0)
    with pytest.raises(ValueError, match="ipc=2, but class 0"):
        make(dataset, 2).distill(dataset, normalization=Normalization.identity(1), random_state=0)


@every_method
def test_an_empty_class_has_too_few_images(make: Maker) -> None:
    full = make_dataset((3, 3))
    dataset = full.subset(full.rows_of_class(1))
    with pytest.raises(ValueError, match="ipc=1, but class 0 .* has 0 images"):
        distill(dataset, make(dataset, 1), random_state=0)


@every_method
def test_same_arguments_same_set(make: Maker) -> None:
    dataset = make_dataset((15, 20), (1, 4, 4))
    sets = [distill(dataset, make(dataset, 4), random_state=11) for _ in range(2)]
    assert_same_set(sets[0], sets[1])


@every_method
def test_only_some_methods_draw(make: Maker) -> None:
    dataset = make_dataset((60, 60), (1, 4, 4))
    sets = [distill(dataset, make(dataset, 6), random_state=seed) for seed in (0, 1)]
    rows = [made.provenance.options["rows"] for made in sets]
    draws = make(dataset, 6).name in {"random", "k-means"}
    assert (rows[0] != rows[1]) == draws


@pytest.mark.parametrize("name", ["random", "herding", "k-center", "forgetting"])
def test_a_smaller_set_is_the_beginning_of_a_larger_one(name: str) -> None:
    dataset = make_dataset((10, 25, 13), (1, 4, 4))
    large, small = (
        rows_by_class(distill(dataset, METHODS[name](dataset, ipc), random_state=2), dataset)
        for ipc in (10, 5)
    )
    assert small == [rows[:5] for rows in large]


@every_method
def test_masses_are_for_k_means_alone(make: Maker) -> None:
    dataset = make_dataset((15, 20), (1, 4, 4))
    made = distill(dataset, make(dataset, 4), random_state=11)
    assert (made.sample_weight == 1).all() == (make(dataset, 4).name != "k-means")


@every_method
def test_saved_and_loaded(make: Maker, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    dataset = make_dataset(RAGGED)
    made = distill(dataset, make(dataset, 2), random_state=2**64 - 1)
    made.save(tmp_path / "set.safetensors")
    assert_same_set(DistilledSet.load(tmp_path / "set.safetensors"), made)


@every_method
def test_rows_of_a_subset_are_its_own(make: Maker) -> None:
    whole = make_dataset((12, 12), (1, 4, 4))
    dataset = whole.subset(np.arange(3, 24)[::-1])
    made = distill(dataset, make(dataset, 3), random_state=0)
    assert_coreset(made, dataset, 3)


@every_method
def test_where_the_images_lie_does_not_matter(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddkern.distill import features

    dataset = make_dataset((15, 20), (1, 4, 4))
    expected = distill(dataset, make(dataset, 4), random_state=1)
    strided = np.asfortranarray(dataset.images())
    monkeypatch.setattr(features, "_PART_BYTES", 16 * 4)
    moved = ImageDataset(
        "made",
        "train",
        ArrayImages(strided, "m"),
        dataset.rows,
        dataset.labels,
        dataset.class_names,
        (1, 4, 4),
    )
    assert_same_set(distill(moved, make(moved, 4), random_state=1), expected)


class LastRow:
    """A feature space of somebody else: the last row of pixels."""

    name: ClassVar[str] = "last-row"

    def options(self) -> dict[str, Any]:
        return {"height": 1}

    @contextlib.contextmanager
    def opened(self, dataset: ImageDataset, normalization: Normalization) -> Iterator[Embed]:
        yield lambda inputs: inputs[:, 0, -1]


@pytest.mark.parametrize("name", ["herding", "k-center", "k-means"])
def test_features_decide(name: str) -> None:
    dataset = make_dataset((40, 30), (1, 3, 6), seed=4)
    cut = dataset_of(dataset.images()[:, :, -1:], dataset.labels, 2)
    by_features, of_cut, by_pixels = (
        distill(data, method, normalization=Normalization.identity(1), random_state=0).provenance
        for data, method in (
            (dataset, make_method(name, ipc=4, features=LastRow())),
            (cut, make_method(name, ipc=4)),
            (dataset, make_method(name, ipc=4)),
        )
    )
    assert by_features.options["rows"] == of_cut.options["rows"]
    assert by_features.options["rows"] != by_pixels.options["rows"]
    assert by_features.options["features"] == {"name": "last-row", "height": 1}
    assert by_pixels.options["features"] == {"name": "pixels"}


@pytest.mark.parametrize("name", ["herding", "k-center", "k-means"])
@pytest.mark.parametrize("wrong", ["pixels", PcaFeatures, None])
def test_features_are_checked(name: str, wrong: object) -> None:
    with pytest.raises(TypeError, match="features=.*; it must be a feature space"):
        make_method(name, ipc=1, features=wrong)


@pytest.mark.parametrize("name", ["herding", "k-center", "k-means", "random", "forgetting"])
def test_ipc_is_checked(name: str) -> None:
    options = {"scores": np.zeros(3)} if name == "forgetting" else {}
    with pytest.raises(ValueError, match="ipc=0; it must be an integer of at least 1"):
        make_method(name, ipc=0, **options)
    with pytest.raises(TypeError, match="ipc=True is a bool"):
        make_method(name, ipc=True, **options)


def test_centroids_of_digits_are_a_better_summary_than_random_images() -> None:
    pytest.importorskip("sklearn")
    digits = open_dataset("digits")
    norm = Normalization.fit(digits)
    x = norm.apply(digits.images()).reshape(len(digits), -1)

    def distortion(method: Method) -> float:
        made = distill(digits, method, normalization=norm, random_state=0)
        _, distance = ddkern.assign(
            x,
            made.inputs().reshape(len(made), -1),
            groups=digits.labels,
            centroid_groups=made.labels,
            return_distance=True,
        )
        return float((distance**2).mean())

    # Measured: 12.1 against 16.1.
    assert distortion(KMeansNearest(ipc=10)) < 0.85 * distortion(Random(ipc=10))
