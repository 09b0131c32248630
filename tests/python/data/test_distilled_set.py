# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from ddkern.data import DistilledSet, Encoding, Normalization
from helpers.distilled import assert_same_set, make_set

NORM = Normalization.published("cifar10")
LABELS = np.array([0, 1, 1, 2])
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), np.uint8)


def _make(images: Any = PIXELS, labels: Any = LABELS, **fields: Any) -> DistilledSet:
    return DistilledSet(images, labels, **({"normalization": NORM} | fields))


def test_defaults() -> None:
    made = _make()
    assert len(made) == 4
    assert made.class_names == ("0", "1", "2")
    assert made.image_shape == (3, 5, 6)
    assert made.class_counts.tolist() == [1, 2, 1]
    assert made.sample_weight.tolist() == [1, 1, 1, 1]
    assert made.sample_weight.dtype == np.float64
    assert made.soft_labels is None
    assert made.student_lr is None
    assert repr(made) == "DistilledSet(images=4 x (3, 5, 6) uint8, classes=3, ipc=1 to 2)"
    expected = "DistilledSet(images=12 x (3, 4, 4) upsampled_parts, classes=3, ipc=4, "
    assert repr(make_set("parts")) == expected + "soft_labels=probabilities, student_lr=0.0123)"


def test_pixels_are_normalised_for_networks() -> None:
    made = _make()
    np.testing.assert_array_equal(made.inputs(), NORM.apply(PIXELS))
    np.testing.assert_array_equal(made.inputs([2, 0]), NORM.apply(PIXELS[[2, 0]]))
    np.testing.assert_array_equal(made.pixels([3]), PIXELS[[3]])
    made.pixels()[:] = 0  # a copy
    np.testing.assert_array_equal(made.pixels(), PIXELS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_floats_are_network_inputs_as_they_are(dtype: Any) -> None:
    values = NORM.apply(PIXELS).astype(dtype)
    made = _make(values)
    assert made.images.dtype == dtype
    assert made.inputs().dtype == np.float32
    np.testing.assert_array_equal(made.inputs([1]), values[[1]].astype(np.float32))
    np.testing.assert_array_equal(made.pixels(), PIXELS)


def test_tensors_and_float64() -> None:
    torch = pytest.importorskip("torch")
    values = torch.randn(4, 3, 5, 6, requires_grad=True)
    made = _make(values, torch.tensor(LABELS), sample_weight=torch.rand(4))
    assert isinstance(made.images, np.ndarray)
    np.testing.assert_array_equal(made.inputs(), values.detach().numpy())
    assert _make(PIXELS / 7).images.dtype == np.float32
    assert _make(values.bfloat16()).images.dtype == np.float32


@pytest.mark.parametrize("kind", ["parts", "low_rank"])
def test_encodings_decode(kind: str) -> None:
    made = make_set(kind)
    assert isinstance(made.images, Encoding)
    rows = np.arange(len(made))
    np.testing.assert_array_equal(made.inputs(), made.images.decode(rows))
    np.testing.assert_array_equal(made.inputs([1, 0]), made.images.decode(rows)[[1, 0]])
    expected = made.normalization.to_pixels(made.inputs())
    np.testing.assert_array_equal(made.pixels(), expected)


@pytest.mark.parametrize("kind", ["floats", "pixels", "parts"])
def test_class_major_order(kind: str) -> None:
    made = make_set(kind)
    ordered = made.class_major()
    order = np.argsort(made.labels, kind="stable")
    assert (np.diff(ordered.labels) >= 0).all()
    np.testing.assert_array_equal(ordered.inputs(), made.inputs()[order])
    for name in ("labels", "sample_weight", "soft_labels"):
        np.testing.assert_array_equal(getattr(ordered, name), getattr(made, name)[order])
    assert ordered.provenance == made.provenance
    if kind != "parts":
        assert_same_set(ordered.class_major(), ordered)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _make().student_lr = 1.0  # type: ignore[misc]


FLOATS = NORM.apply(PIXELS)
HOLED = np.where(np.arange(4)[:, None, None, None] == 2, np.float32(np.nan), FLOATS)
SOFT = np.eye(3, dtype=np.float32)[LABELS]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": PIXELS[0]}, r"images has shape \(3, 5, 6\); it must be \(n, channels"),
        ({"images": PIXELS[:, :2]}, "with 1 or 3 channels"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, r"images has shape \(0, 3, 5, 6\)"),
        ({"images": HOLED}, r"images\[2\] holds NaN"),
        ({"images": PIXELS[:, :1]}, "its normalization is for 3 channels"),
        ({"images": [*PIXELS[:3], PIXELS[3, :, :4]]}, "images does not form an array"),
        ({"labels": LABELS[:3]}, r"labels has shape \(3,\); .* each of the 4 images"),
        ({"labels": [0, 1, 1, -1]}, r"labels\[3\]: label -1 is out of range"),
        (
            {"labels": [0, 1, 3, 2], "class_names": tuple("abc")},
            r"labels\[2\]: label 3",
        ),
        ({"labels": [0, 2, 2, 2]}, r"labels: class 1 \('1'\) is empty"),
        ({"class_names": tuple("abcd")}, r"labels: class 3 \('d'\) is empty"),
        ({"sample_weight": [1, 1, 1]}, r"sample_weight has shape \(3,\); .* each of the 4 images"),
        ({"sample_weight": [1, -1, 1, 1]}, r"sample_weight\[1\] is -1.0; weights must be finite"),
        (
            {"sample_weight": [1, 1, np.nan, 1]},
            r"sample_weight\[2\] is nan; weights must be finite",
        ),
        ({"sample_weight": [1, 1, 1, np.inf]}, r"sample_weight\[3\] is inf"),
        ({"sample_weight": [1, 0, 0, 1]}, r"sample_weight is 0 for every image of class 1 \('1'\)"),
        ({"soft_labels": SOFT[:, :2]}, r"soft_labels has shape \(4, 2\); it must hold 3 numbers"),
        ({"soft_labels": SOFT * 1.1}, r"soft_labels\[0\] is .*; probabilities must be at least 0"),
        ({"soft_labels": SOFT - 1}, r"soft_labels\[0\] is"),
        (
            {"soft_labels": np.where(SOFT > 0, np.nan, 0), "soft_label_kind": "logits"},
            r"soft_labels\[0\] is .*; soft labels must be finite",
        ),
        ({"soft_label_kind": "hard"}, "soft_label_kind='hard'; it must be one of"),
        ({"student_lr": 0.0}, "student_lr=0.0; a learning rate must be finite and above 0"),
        ({"student_lr": -0.1}, "student_lr=-0.1"),
        ({"student_lr": np.nan}, "student_lr=nan"),
    ],
)
def test_bad_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _make(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": PIXELS.astype(np.int64)}, "images has dtype int64; pixels must be uint8"),
        ({"labels": LABELS / 1}, "labels has dtype float64; it must hold one integer an image"),
        ({"class_names": "abc"}, "class_names='abc' is a str; it must be a sequence"),
        ({"soft_label_kind": None}, "soft_label_kind is a NoneType"),
    ],
)
def test_bad_types(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        _make(**fields)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_soft_labels_of_three_kinds(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(3), 4).astype(dtype)
    made = _make(soft_labels=probabilities)
    assert made.soft_labels is not None
    assert made.soft_labels.dtype == dtype
    logits = rng.normal(size=(4, 3)).astype(dtype)
    for kind in ("logits", "targets"):
        made = _make(soft_labels=logits, soft_label_kind=kind)
        np.testing.assert_array_equal(made.soft_labels, logits)
