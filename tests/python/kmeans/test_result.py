# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern import QuantizeResult, QuantizeStats, UnsupportedError
from helpers.bits import assert_same_array_bits, assert_same_bits

SUFFIXES = ["npz", "safetensors"]


def _result(kind: str = "numpy") -> QuantizeResult:
    x = np.random.default_rng(3).normal(size=(60, 2, 3)).astype(np.float32)
    if kind == "torch":
        x = pytest.importorskip("torch").from_numpy(x)
    if kind == "batch":
        seeds = [2**64 - 1, 0, 5]
        return ddkern.quantize(x.reshape(3, 20, 6), 4, batch_dims=1, random_state=seeds)
    groups = np.arange(60) % 3 - 1
    return ddkern.quantize(x, [2, 5, 3], groups=groups, random_state=2**64 - 1)


def _path(tmp_path: Path, suffix: str) -> Path:
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"result.{suffix}"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["numpy", "batch", "torch"])
def test_round_trip_is_exact(kind: str, suffix: str, tmp_path: Path) -> None:
    path = _path(tmp_path, suffix)
    saved = _result(kind)
    saved.save(path)
    loaded = QuantizeResult.load(str(path))
    assert_same_bits(loaded, saved)
    assert len(loaded.distortion_history) == len(saved.distortion_history)
    for mine, theirs in zip(loaded.distortion_history, saved.distortion_history, strict=True):
        assert_same_array_bits(mine, theirs, "distortion_history")
    assert type(loaded.random_state) is type(saved.random_state)
    assert np.array_equal(loaded.random_state, saved.random_state)
    for field in dataclasses.fields(QuantizeStats):
        mine, theirs = getattr(loaded.stats, field.name), getattr(saved.stats, field.name)
        assert type(mine) is type(theirs), field.name
        assert np.array_equal(mine, theirs), field.name
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_replaces_the_file(suffix: str, tmp_path: Path) -> None:
    path = _path(tmp_path, suffix)
    path.write_bytes(b"old")
    _result().save(path)
    assert_same_bits(QuantizeResult.load(path), _result())


def test_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.npz"
    path.write_bytes(b"old")

    def fail(file: Any, **arrays: Any) -> None:
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        _result().save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["result", "result.npy", "result.npz.gz"])
def test_unknown_suffix(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its suffix must be \.npz or \.safetensors"):
        _result().save(tmp_path / name)
    with pytest.raises(ValueError, match=r"its suffix must be \.npz or \.safetensors"):
        QuantizeResult.load(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_garbage(suffix: str, tmp_path: Path) -> None:
    path = _path(tmp_path, suffix)
    path.write_bytes(b"this is neither")
    with pytest.raises(ValueError, match=f"is not an? .{suffix} file"):
        QuantizeResult.load(path)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        QuantizeResult.load(tmp_path / "absent.npz")


def test_somebody_elses_archive(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, centroids=np.zeros(3))
    with pytest.raises(ValueError, match="does not hold a QuantizeResult"):
        QuantizeResult.load(path)


def test_somebody_elses_tensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "other.safetensors"
    safetensors.save_file({"centroids": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="does not hold a QuantizeResult"):
        QuantizeResult.load(path)


def test_later_format(tmp_path: Path) -> None:
    path = tmp_path / "later.npz"
    metadata = {"format": "ddkern.QuantizeResult", "format_version": 99}
    np.savez(path, metadata=np.array(json.dumps(metadata)))
    with pytest.raises(ValueError, match="has format version 99; this ddkern reads version 1"):
        QuantizeResult.load(path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pickle.npz"
    np.savez(path, metadata=np.array([{"format": "ddkern.QuantizeResult"}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        QuantizeResult.load(path)


def test_safetensors_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(UnsupportedError, match="pip install safetensors"):
        _result().save(tmp_path / "result.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnsupportedError, match="pip install safetensors"):
        QuantizeResult.load(tmp_path / "result.safetensors")


def test_records_are_frozen() -> None:
    result = _result()
    for record, name in ((result, "centroids"), (result.stats, "isa")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)
        assert not hasattr(record, "__dict__")


def test_pickle_round_trip() -> None:
    result = _result()
    again = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own bytes
    assert_same_bits(again, result)
    assert again.stats.algorithm == result.stats.algorithm


def test_short_representation() -> None:
    text = repr(_result())
    assert text.startswith("QuantizeResult(centroids=(10, 2, 3), assignment=(60,), groups=3, ")
    assert "converged=3/3, random_state=18446744073709551615)" in text
    assert "random_state=<3 seeds>)" in repr(_result("batch"))
    seeds = ddkern.seed_centroids(np.arange(6.0), 2, random_state=9)
    assert repr(seeds) == "SeedResult(centroids=(2,), groups=1, random_state=9)"
