# SPDX-License-Identifier: Apache-2.0
"""Small distilled sets, and their comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddkern.data import DistilledSet, Encoding, Normalization, Provenance, Zca
from helpers.bits import assert_same_array_bits

NAMES = ("cat", "dog/wolf", "owl")


def make_zca(d: int, seed: int = 5) -> Zca:
    """Return a well-conditioned whitening of `d` values."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    matrix = (basis * rng.uniform(0.5, 2, d)) @ basis.T
    return Zca(rng.uniform(0.3, 0.7, d), ((matrix + matrix.T) / 2).astype(np.float32), 0.1)


def make_set(kind: str = "floats", **changes: Any) -> DistilledSet:
    """Return a set of six images of three classes, in mixed order, with everything filled in.

    `kind`: "floats", "pixels", "zca", "parts" or "low_rank".
    """
    rng = np.random.default_rng(1)
    norm = Normalization(np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3]))
    images: Any = rng.normal(size=(6, 3, 4, 4)).astype(np.float32)
    if kind == "pixels":
        images = rng.integers(0, 256, (6, 3, 4, 4), np.uint8)
    elif kind == "zca":
        norm = Normalization(np.zeros(3), np.ones(3), make_zca(48))
    elif kind == "parts":
        stored = rng.normal(size=(3, 3, 4, 4)).astype(np.float32)
        images = Encoding("upsampled_parts", {"images": stored}, {"factor": 2})
        kind_labels = np.repeat([2, 0, 1], 4)
    elif kind == "low_rank":
        left, right = rng.normal(size=(2, 6, 3, 4, 2)).astype(np.float32)
        images = Encoding("low_rank", {"left": left, "right": right.swapaxes(2, 3).copy()}, {})
    labels = kind_labels if kind == "parts" else np.array([2, 0, 1, 0, 1, 2])
    soft = rng.dirichlet(np.ones(3), len(labels)).astype(np.float32)
    fields = {
        "normalization": norm,
        "class_names": NAMES,
        "sample_weight": rng.uniform(0.1, 3, len(labels)),
        "soft_labels": soft,
        "student_lr": 0.0123,
        "provenance": Provenance(
            method="dm",
            options={"ipc": 2, "sizes": (1, 2)},
            random_state=2**64 - 1,
            source="digits",
            source_split="train",
            source_hash="abc",
            protocol="E1-dsa",
            versions={"numpy": "2.0"},
            commit="0123",
        ),
    }
    return DistilledSet(images, labels, **(fields | changes))


def assert_same_set(actual: DistilledSet, expected: DistilledSet) -> None:
    """Fail unless two sets agree in every field, arrays bit by bit."""
    assert isinstance(actual.images, Encoding) == isinstance(expected.images, Encoding)
    if isinstance(actual.images, Encoding) and isinstance(expected.images, Encoding):
        assert actual.images.decoder == expected.images.decoder
        assert actual.images.options == expected.images.options
        assert set(actual.images.arrays) == set(expected.images.arrays)
        for name, array in actual.images.arrays.items():
            assert_same_array_bits(array, expected.images.arrays[name], name)
    else:
        assert_same_array_bits(actual.images, expected.images, "images")
    for name in ("labels", "sample_weight"):
        assert_same_array_bits(getattr(actual, name), getattr(expected, name), name)
    assert (actual.soft_labels is None) == (expected.soft_labels is None)
    if actual.soft_labels is not None:
        assert_same_array_bits(actual.soft_labels, expected.soft_labels, "soft_labels")
    for name in ("class_names", "soft_label_kind", "student_lr", "provenance"):
        assert getattr(actual, name) == getattr(expected, name), name
    a, e = actual.normalization, expected.normalization
    assert_same_array_bits(a.mean, e.mean, "mean")
    assert_same_array_bits(a.std, e.std, "std")
    assert (a.zca is None) == (e.zca is None)
    if a.zca is not None and e.zca is not None:
        assert_same_array_bits(a.zca.mean, e.zca.mean, "zca.mean")
        assert_same_array_bits(a.zca.matrix, e.zca.matrix, "zca.matrix")
        assert a.zca.eps == e.zca.eps
