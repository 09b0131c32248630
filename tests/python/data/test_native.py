# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

import safetensors.numpy

from ddkern import UnsupportedError
from ddkern.data import DistilledSet, Normalization
from helpers.distilled import assert_same_set, make_set


@pytest.mark.parametrize("kind", ["floats", "pixels", "zca", "parts", "low_rank"])
def test_round_trip_is_exact(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    made = make_set(kind)
    made.save(path)
    loaded = DistilledSet.load(str(path))
    assert_same_set(loaded, made)
    np.testing.assert_array_equal(loaded.inputs(), made.inputs())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "changes",
    [
        {"soft_labels": None, "student_lr": None},
        {"soft_labels": np.full((6, 3), 1 / 3, np.float16)},
        {"soft_labels": np.ones((6, 3), np.float32), "soft_label_kind": "logits"},
    ],
)
def test_optional_fields(changes: dict[str, object], tmp_path: Path) -> None:
    made = make_set("pixels", **changes)
    made.save(tmp_path / "set.safetensors")
    assert_same_set(DistilledSet.load(tmp_path / "set.safetensors"), made)


def test_other_programs_find_the_tensors_by_name(tmp_path: Path) -> None:
    made = make_set("pixels")
    made.save(tmp_path / "set.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "set.safetensors")
    np.testing.assert_array_equal(arrays["images"], made.images)
    np.testing.assert_array_equal(arrays["labels"], made.labels)
    np.testing.assert_array_equal(arrays["sample_weight"], made.sample_weight)


READ_AND_TRAIN = """
import sys, torch
from torch.utils.data import DataLoader
from ddkern.data import DistilledSet

distilled = DistilledSet.load(sys.argv[1])
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=distilled.student_lr)
for epoch in range(150):
    for inputs, labels, weight in DataLoader(distilled.as_torch_dataset(), 50, shuffle=True):
        losses = torch.nn.functional.cross_entropy(net(inputs), labels, reduction="none")
        optimizer.zero_grad()
        (losses * weight).mean().backward()
        optimizer.step()
inputs, labels, _ = next(iter(DataLoader(distilled.as_torch_dataset(), len(distilled))))
print((net(inputs).argmax(1) == labels).float().mean().item())
"""


@pytest.mark.slow
def test_a_fresh_process_trains_on_a_saved_set_in_a_plain_torch_loop(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from ddkern.data import open_dataset

    train = open_dataset("digits")
    rows = np.concatenate([train.rows_of_class(digit)[:10] for digit in range(10)])
    path = tmp_path / "digits.safetensors"
    DistilledSet(
        train.images(rows),
        train.labels[rows],
        normalization=Normalization.fit(train),
        sample_weight=np.linspace(0.5, 1.5, 100),
        student_lr=0.1,
    ).save(path)
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_TRAIN, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > 0.95


SAVE_FOR_EVER = """
import sys
import numpy as np
from ddkern.data import DistilledSet, Normalization

sets = [
    DistilledSet(
        np.full((120, 3, 128, 128), value, np.float32),
        np.arange(120) % 10,
        normalization=Normalization.identity(3),
        sample_weight=np.full(120, value + 1.0),
    )
    for value in (0, 1)
]
sets[0].save(sys.argv[1])
print("saved", flush=True)
while True:
    sets[1].save(sys.argv[1])
    sets[0].save(sys.argv[1])
"""


@pytest.mark.parametrize("moment", [1, 2, 0.013, 0.037, 0.051, 0.1])
def test_kill_9_during_save_leaves_the_old_file_or_the_new_one(
    moment: float, tmp_path: Path
) -> None:
    # A whole number counts the drafts to wait for, another one is a time in seconds.
    path = tmp_path / "set.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        if isinstance(moment, float):
            time.sleep(moment)
        else:  # while the next file is being written
            deadline, drafts = time.monotonic() + 10, set[Path]()
            while len(drafts) < moment:
                drafts |= set(tmp_path.iterdir()) - {path}
                assert time.monotonic() < deadline, "no draft of the file was ever seen"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL
        if process.stdout is not None:
            process.stdout.close()
    survivor = DistilledSet.load(path)
    value = float(survivor.sample_weight[0]) - 1
    assert value in (0, 1)
    assert survivor.images.shape == (120, 3, 128, 128)
    assert (survivor.inputs() == value).all()


def test_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with pytest.raises(FileNotFoundError):
        make_set().save(tmp_path / "absent" / "set.safetensors")
    assert path.read_bytes() == b"old"
    make_set().save(path)
    assert_same_set(DistilledSet.load(path), make_set())


@pytest.mark.parametrize("name", ["set", "set.npz", "set.pt"])
def test_other_suffixes(name: str, tmp_path: Path) -> None:
    for call in (make_set().save, DistilledSet.load):
        with pytest.raises(ValueError, match=r"its suffix must be \.safetensors"):
            call(tmp_path / name)


def test_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    path.write_bytes(b"this is not one")
    with pytest.raises(ValueError, match=r"set\.safetensors is not a \.safetensors file"):
        DistilledSet.load(path)
    safetensors.numpy.save_file({"images": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="does not hold a DistilledSet"):
        DistilledSet.load(path)
    header = {"metadata": json.dumps({"format": "ddkern.DistilledSet", "format_version": 2})}
    safetensors.numpy.save_file({"images": np.zeros(3)}, path, header)
    with pytest.raises(ValueError, match="has format version 2; this ddkern reads version 1"):
        DistilledSet.load(path)
    with pytest.raises(FileNotFoundError):
        DistilledSet.load(tmp_path / "absent.safetensors")


def test_a_file_is_checked_like_arguments(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    make_set("pixels").save(path)
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata()
    arrays["sample_weight"][1] = -2
    safetensors.numpy.save_file(arrays, path, header)
    with pytest.raises(ValueError, match=r"sample_weight\[1\] is -2.0"):
        DistilledSet.load(path)


def test_safetensors_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (make_set().save, DistilledSet.load):
        with pytest.raises(UnsupportedError, match=r"needs the package safetensors .*\[data\]"):
            call(tmp_path / "set.safetensors")
    assert not list(tmp_path.iterdir())
