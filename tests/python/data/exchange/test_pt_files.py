# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ddkern.data import DistilledSet, Normalization, load_pt_files, save_pt_files
from helpers.bits import assert_same_array_bits
from helpers.distilled import make_set

NORM = Normalization.published("cifar10")


def _published(folder: Path, **more: Any) -> tuple[Any, Any]:
    """Write what MTT publishes: normalised float32 images, int64 labels, class after class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 3, 8, 8, generator=generator)
    labels = torch.arange(10).repeat_interleave(2)
    folder.mkdir()
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    for name, value in more.items():
        torch.save(value, folder / f"{name}.pt")
    return images, labels


def test_a_published_set_round_trips(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    images, labels = _published(tmp_path / "published", lr_best=torch.tensor(0.0279))
    loaded = load_pt_files(tmp_path / "published", normalization=NORM)
    assert loaded.student_lr == pytest.approx(0.0279)
    assert loaded.soft_labels is None
    loaded.save(tmp_path / "set.safetensors")
    again = DistilledSet.load(tmp_path / "set.safetensors")
    save_pt_files(again, tmp_path / "out")
    back = {
        name: torch.load(tmp_path / "out" / f"{name}_best.pt", weights_only=True)
        for name in ("images", "labels", "lr")
    }
    assert_same_array_bits(back["images"].numpy(), images.numpy(), "images")
    assert_same_array_bits(back["labels"].numpy(), labels.numpy(), "labels")
    assert back["lr"].dtype == torch.float32
    assert back["lr"].item() == torch.tensor(0.0279).item()


def test_learning_rate_as_a_number_or_not_at_all(tmp_path: Path) -> None:
    _published(tmp_path / "a", lr_best=0.5)
    assert load_pt_files(tmp_path / "a", normalization=NORM).student_lr == 0.5
    _published(tmp_path / "b")
    assert load_pt_files(tmp_path / "b", normalization=NORM).student_lr is None


def test_learned_labels(tmp_path: Path) -> None:
    _published(tmp_path / "in")
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(1))
    torch.save(logits, tmp_path / "in" / "labels_best.pt")
    loaded = load_pt_files(tmp_path / "in", normalization=NORM)
    assert loaded.soft_label_kind == "logits"
    assert_same_array_bits(loaded.soft_labels, logits.numpy(), "soft_labels")
    assert loaded.labels.tolist() == np.repeat(np.arange(10), 2).tolist()
    save_pt_files(loaded, tmp_path / "out")
    back = torch.load(tmp_path / "out" / "labels_best.pt", weights_only=True)
    assert_same_array_bits(back.numpy(), logits.numpy(), "labels")
    # Peaked where the class is another one than the place says.
    torch.save(
        torch.eye(10)[[9, 8, 7, 6, 5, 4, 3, 2, 1, 0] * 2], tmp_path / "in" / "labels_best.pt"
    )
    by_size = load_pt_files(
        tmp_path / "in",
        normalization=NORM,
        hard_labels="argmax",
        soft_label_kind="probabilities",
    )
    assert by_size.labels.tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0] * 2


def test_uneven_learned_labels_need_another_rule(tmp_path: Path) -> None:
    _published(tmp_path / "in")
    torch.save(torch.zeros(20, 3), tmp_path / "in" / "labels_best.pt")
    with pytest.raises(ValueError, match="20 images are not the same number for each of 3 classes"):
        load_pt_files(tmp_path / "in", normalization=NORM)


def _dm_file(path: Path) -> list[list[Any]]:
    sets = [[torch.randn(4, 1, 5, 5), torch.tensor([0, 0, 1, 1])] for _ in range(3)]
    accuracies = {"ConvNet": [np.float64(0.5), np.float32(0.25), np.int64(3)]}
    torch.save({"data": sets, "accs_all_exps": accuracies}, path)
    return sets


def test_files_of_dc_dsa_and_dm(tmp_path: Path) -> None:
    sets = _dm_file(tmp_path / "res_DM.pt")
    for experiment in range(3):
        loaded = load_pt_files(
            tmp_path / "res_DM.pt",
            normalization=Normalization.published("mnist"),
            experiment=experiment,
        )
        assert_same_array_bits(loaded.images, sets[experiment][0].numpy(), "images")
        assert loaded.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"experiment=3; .*res_DM\.pt has 3"):
        load_pt_files(
            tmp_path / "res_DM.pt", normalization=Normalization.published("mnist"), experiment=3
        )


def test_dd_ranking_is_class_major(tmp_path: Path) -> None:
    made = make_set("floats", sample_weight=np.ones(6))
    save_pt_files(made, tmp_path / "out", layout="dd_ranking")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "images.pt",
        "labels.pt",
        "lr.pt",
    ]
    images = torch.load(tmp_path / "out" / "images.pt", weights_only=True)
    soft = torch.load(tmp_path / "out" / "labels.pt", weights_only=True)
    order = [1, 3, 2, 4, 0, 5]
    assert_same_array_bits(images.numpy(), made.images[order], "images")
    assert_same_array_bits(soft.numpy(), made.soft_labels[order], "labels")
    again = load_pt_files(
        tmp_path / "out",
        normalization=made.normalization,
        class_names=made.class_names,
        soft_label_kind="probabilities",
    )
    assert again.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert again.student_lr == pytest.approx(0.0123)


def test_pixels_are_normalised_on_the_way_out(tmp_path: Path) -> None:
    made = make_set("pixels", soft_labels=None, sample_weight=np.ones(6))
    save_pt_files(made, tmp_path / "out")
    images = torch.load(tmp_path / "out" / "images_best.pt", weights_only=True)
    assert_same_array_bits(images.numpy(), made.class_major().inputs(), "images")
    labels = torch.load(tmp_path / "out" / "labels_best.pt", weights_only=True)
    assert labels.dtype == torch.int64


def test_weights_are_not_dropped_silently(tmp_path: Path) -> None:
    made = make_set()
    with pytest.raises(
        ValueError, match=r"sample_weight ranges from .* have no weights; pass drop"
    ):
        save_pt_files(made, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    save_pt_files(made, tmp_path / "out", drop_weights=True)
    assert (tmp_path / "out" / "images_best.pt").exists()


def test_classes_of_different_sizes(tmp_path: Path) -> None:
    made = DistilledSet(
        np.zeros((3, 3, 2, 2), np.uint8), [0, 0, 1], normalization=Normalization.identity(3)
    )
    with pytest.raises(ValueError, match="the classes have 1 to 2 images"):
        save_pt_files(made, tmp_path / "out")


class Intruder:
    """Would create a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("in_dictionary", [False, True])
def test_nothing_in_a_file_is_executed(tmp_path: Path, in_dictionary: bool) -> None:
    _published(tmp_path / "in")
    trace = tmp_path / "trace"
    if in_dictionary:
        path = tmp_path / "res.pt"
        torch.save({"data": [], "x": Intruder(trace)}, path)
    else:
        path = tmp_path / "in"
        (path / "images_best.pt").unlink()
        torch.save(Intruder(trace), path / "images_best.pt")
    with pytest.raises(ValueError, match="holds more than tensors and plain values, and is not"):
        load_pt_files(path, normalization=NORM)
    assert not trace.exists()


def test_numpy_scalars_of_objects_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    array = np.empty((), object)
    array[()] = Intruder(trace)
    torch.save({"data": [], "accs_all_exps": array}, tmp_path / "res.pt")
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_pt_files(tmp_path / "res.pt", normalization=NORM)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "res.pt is not a .pt file"),
        (b"something else", "res.pt is not a .pt file"),  # sets an item of an empty stack
        (b"h\x01", "res.pt is not a .pt file"),  # recalls what was never stored
        (b"K", "res.pt is not a .pt file"),  # an integer without its byte
        (b"X\x01\x00\x00\x00\xff", "res.pt is not a .pt file"),  # a string that is not UTF-8
        (b"neither one nor the other", "res.pt (is not a .pt file|holds more than)"),
        (pickle.dumps([1, 2], 2), "res.pt (is not a .pt file|holds)"),
    ],
)
def test_garbage(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "res.pt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_pt_files(tmp_path / "res.pt", normalization=NORM)


def test_other_contents(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="holds no dictionary with an entry 'data'; for a tensor"):
        load_pt_files(tmp_path / "tensor.pt", normalization=NORM)
    _published(tmp_path / "in")
    torch.save([1, 2], tmp_path / "in" / "labels_best.pt")
    with pytest.raises(ValueError, match="a list lies where a tensor should be"):
        load_pt_files(tmp_path / "in", normalization=NORM)
    with pytest.raises(
        FileNotFoundError, match="does not hold images_best.pt and labels_best.pt or"
    ):
        load_pt_files(tmp_path, normalization=NORM)
    with pytest.raises(FileNotFoundError):
        load_pt_files(tmp_path / "absent.pt", normalization=NORM)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(20) - 1, r"labels\[0\]: label -1 is out of range"),
        (torch.arange(19), r"labels has shape \(19,\)"),
        (torch.arange(20) // 2 * 2, "is empty"),
    ],
)
def test_published_labels_are_checked(labels: Any, message: str, tmp_path: Path) -> None:
    _published(tmp_path / "in")
    torch.save(labels, tmp_path / "in" / "labels_best.pt")
    with pytest.raises(ValueError, match=message):
        load_pt_files(tmp_path / "in", normalization=NORM)


MTT_READER = """
import sys, torch
images = torch.load(sys.argv[1] + "/images_best.pt")
labels = torch.load(sys.argv[1] + "/labels_best.pt")
data = torch.utils.data.TensorDataset(images.detach().float(), labels.detach())
for x, y in torch.utils.data.DataLoader(data, batch_size=6):
    print(x.shape, x.dtype, y.tolist(), float(x.double().sum()))
"""


def test_a_plain_torch_program_reads_the_export(tmp_path: Path) -> None:
    made = make_set("floats", soft_labels=None, sample_weight=np.ones(6))
    save_pt_files(made, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", MTT_READER, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    total = float(made.class_major().inputs().astype(np.float64).sum())
    shape = "torch.Size([6, 3, 4, 4]) torch.float32 [0, 0, 1, 1, 2, 2] "
    assert done.stdout.startswith(shape)
    assert float(done.stdout.removeprefix(shape)) == pytest.approx(total, rel=1e-12)
