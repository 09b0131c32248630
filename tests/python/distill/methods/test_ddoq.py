# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.data import DistilledSet, Normalization
from ddkern.distill import D4M, DDOQ, distill
from ddkern.distill.latent_sets import Codebook
from ddkern.latents import IdentityCodec
from helpers.bits import assert_same_array_bits
from helpers.codecs import WatchedCodec
from helpers.coresets import make_dataset

IPC = 4
SHAPE = (1, 3, 2)
# Enough for several parts of each stage: 512 images are encoded, 32 latents decoded at once.
COUNTS = (700, 450, 20, 400, *(5,) * 16)


def method(codec: Any = None, **options: Any) -> DDOQ:
    return DDOQ(ipc=IPC, codec=IdentityCodec(SHAPE) if codec is None else codec, **options)


def make(method: Any, seed: int = 3, **options: Any) -> DistilledSet:
    return distill(make_dataset(COUNTS), method, random_state=seed, **options)


def test_images_are_decoded_centroids_and_weights_their_masses() -> None:
    dataset = make_dataset(COUNTS)
    made = make(method())
    pixels = (dataset.images().astype(np.float32) / 127.5 - 1).reshape(len(dataset), *SHAPE)
    q = ddkern.quantize(pixels, IPC, groups=dataset.labels, random_state=3)
    assert made.images.shape == (IPC * len(COUNTS), *SHAPE)
    for label in range(len(COUNTS)):
        cells = np.flatnonzero(q.groups == label)
        cells = cells[np.argsort(-q.weights[cells], kind="stable")]
        mine = np.flatnonzero(made.labels == label)
        np.testing.assert_array_equal(
            made.images[mine], np.rint((q.centroids[cells] + 1) * 127.5).astype(np.uint8)
        )
        np.testing.assert_array_equal(made.sample_weight[mine], q.weights[cells] * IPC)
    assert made.soft_labels is None


def test_a_class_does_not_depend_on_the_others() -> None:
    dataset = make_dataset((60, 40, 50))
    watched = method(WatchedCodec(SHAPE))
    one = Normalization.identity(1)
    both = distill(dataset, watched, random_state=0, normalization=one)
    first = dataset.subset(dataset.rows_of_class(0))
    first = replace(first, class_names=dataset.class_names[:1])
    alone = distill(first, watched, random_state=0, normalization=one)
    assert_same_array_bits(alone.images, both.images[both.labels == 0], "images")


def test_options_reach_the_decoder_and_the_provenance() -> None:
    watched = method(WatchedCodec(SHAPE), strength=0.25)
    made = make(watched)
    options = made.provenance.options
    assert options["decoding"] == {"strength": 0.25}
    assert options["codec"]["name"] == "watched"
    assert (options["ipc"], options["n_init"], options["teacher"]) == (IPC, 1, None)
    assert "folder" not in options
    json.dumps(dict(options))
    other = make(method(WatchedCodec(SHAPE), strength=0.75))
    assert (made.images[:, 0, 0, 0] <= other.images[:, 0, 0, 0]).all()
    assert (made.images[:, 0, 0, 0] < other.images[:, 0, 0, 0]).any()


def test_noise_belongs_to_the_class_and_the_rank_of_the_cell() -> None:
    made = make(method(WatchedCodec(SHAPE), strength=1.0))
    for label in (0, 3):
        for rank, image in enumerate(made.images[made.labels == label]):
            key = np.random.Philox(key=[3, (label << 32) + rank])
            assert image[0, 0, 0] == np.random.Generator(key).integers(256)


def test_restarts_are_those_of_the_quantizer() -> None:
    dataset = make_dataset(COUNTS)
    pixels = dataset.images().astype(np.float32) / 127.5 - 1
    q = ddkern.quantize(pixels, IPC, groups=dataset.labels, random_state=3, n_init=5)
    once, five = make(method()), make(method(n_init=5))
    assert not np.array_equal(once.images, five.images)
    cells = np.flatnonzero(q.groups == 0)
    np.testing.assert_array_equal(
        np.sort(five.sample_weight[five.labels == 0]), np.sort(q.weights[cells] * IPC)
    )


def test_ids_count_within_a_class() -> None:
    codebook = Codebook.sorted_by_mass(
        np.zeros((4, 1), np.float32), np.array([0.2, 0.8, 0.5, 0.5]), np.array([1, 1, 0, 0])
    )
    assert codebook.labels.tolist() == [0, 0, 1, 1]
    assert codebook.masses.tolist() == [0.5, 0.5, 0.8, 0.2]
    assert codebook.ids.tolist() == [0, 1, 1 << 32, (1 << 32) + 1]


def test_a_teacher_gives_logits() -> None:
    torch = pytest.importorskip("torch")
    n = len(COUNTS)
    torch.manual_seed(0)
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(6, n))
    made = make(method(teacher=teacher), normalization=Normalization.identity(1))
    assert made.soft_label_kind == "logits"
    inputs = torch.from_numpy(made.images / np.float32(255)).flatten(1)
    np.testing.assert_allclose(
        made.soft_labels, teacher[2](inputs).detach().numpy(), rtol=1e-5, atol=1e-6
    )
    assert teacher[1].training, "the teacher's mode was changed"
    assert made.provenance.options["teacher"]["weights"].startswith("sha256:")


# --------------------------------------------------------------------------------- work folders


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    first = WatchedCodec(SHAPE)
    made = make(method(first, folder=tmp_path))
    assert first.calls == ["encode"] * 4 + ["decode"] * 3
    again = WatchedCodec(SHAPE)
    assert_same_array_bits(make(method(again, folder=tmp_path)).images, made.images, "images")
    assert again.calls == []
    # Another strength needs the decoder alone; other numbers of images all but the encoder.
    make(method(again, folder=tmp_path, strength=0.7))
    assert again.calls == ["decode"] * 3
    distill(make_dataset(COUNTS), DDOQ(ipc=2, codec=again, folder=tmp_path), random_state=3)
    assert again.calls == ["decode"] * 5


def test_folder_changes_nothing(tmp_path: Path) -> None:
    within, without = make(method(folder=tmp_path)), make(method())
    assert_same_array_bits(within.images, without.images, "images")
    assert_same_array_bits(within.sample_weight, without.sample_weight, "weights")


def test_measures_and_nearest_images_are_kept(tmp_path: Path) -> None:
    dataset = make_dataset(COUNTS)
    made = make(method(folder=tmp_path))
    measures = json.loads((tmp_path / "measures.json").read_text())
    pixels = dataset.images().astype(np.float32) / 127.5 - 1
    q = ddkern.quantize(pixels, IPC, groups=dataset.labels, random_state=3)
    np.testing.assert_allclose(
        [group["distortion"] for group in measures["groups"]], q.distortion, rtol=1e-6
    )
    assert measures["summary"]["gain_lower"] > 0, "the masses are worth something"
    unweighted = tmp_path / "d4m"
    make(D4M(ipc=IPC, codec=IdentityCodec(SHAPE), clustering="lloyd", folder=unweighted))
    equal = json.loads((unweighted / "measures.json").read_text())["summary"]
    assert equal["w2_upper"] == pytest.approx(equal["w2_uniform_upper"])
    assert equal["w2_upper"] > measures["summary"]["w2_upper"]
    nearest = np.load(tmp_path / "nearest_real.npy")
    for label in range(len(COUNTS)):
        mine = made.labels == label
        members = dataset.images(dataset.rows_of_class(label)).reshape(-1, 6).astype(float)
        centroids = q.centroids[q.groups == label].reshape(-1, 6)
        order = np.argsort(-q.weights[q.groups == label], kind="stable")
        scaled = (centroids[order] + 1) * 127.5
        gaps = np.linalg.norm(scaled[:, None] - members[None], axis=2)
        found = np.linalg.norm(scaled - nearest[mine].reshape(-1, 6), axis=1)
        np.testing.assert_allclose(found, gaps.min(1), rtol=1e-5)


def test_changed_data_under_an_old_folder(tmp_path: Path) -> None:
    make(method(folder=tmp_path))
    other = make_dataset(COUNTS, seed=1)
    with pytest.raises(ValueError, match=r"latents.npy was made with dataset_hash='.*Choose"):
        distill(other, method(folder=tmp_path), random_state=3)
    named = replace(make_dataset(COUNTS), name="other")
    with pytest.raises(ValueError, match=r"latents.npy was made with dataset='made'; this call"):
        distill(named, method(folder=tmp_path), random_state=3)


def test_another_seed_takes_the_latents_that_are_there(tmp_path: Path) -> None:
    make(method(WatchedCodec(SHAPE), folder=tmp_path))
    again = WatchedCodec(SHAPE)
    made = make(method(again, folder=tmp_path), seed=4)
    assert again.calls == ["decode"] * 3
    assert_same_array_bits(made.images, make(method(WatchedCodec(SHAPE)), seed=4).images, "images")
    assert not np.array_equal(made.images, make(method(WatchedCodec(SHAPE))).images)


def test_latents_that_are_drawn_belong_to_their_seed(tmp_path: Path) -> None:
    class Drawing(WatchedCodec):
        def describe(self) -> dict[str, Any]:
            return {**super().describe(), "sample": True}

    make(method(Drawing(SHAPE), folder=tmp_path))
    with pytest.raises(ValueError, match=r"made with encoding_seed=3; this call has 4"):
        make(method(Drawing(SHAPE), folder=tmp_path), seed=4)


def test_images_that_change_under_an_open_data_set_are_noticed(tmp_path: Path) -> None:
    dataset = make_dataset(COUNTS)
    how = {"normalization": Normalization.identity(SHAPE[0]), "random_state": 3}
    distill(dataset, method(folder=tmp_path), **how)
    dataset.source.images[0] += 1
    with pytest.raises(ValueError, match=r"was made with dataset_hash=.*; this call has"):
        distill(dataset, method(folder=tmp_path), **how)


def test_a_damaged_store_is_found(tmp_path: Path) -> None:
    made = make(method(folder=tmp_path))
    store = tmp_path / "latents" / "latents.npy"
    content = bytearray(store.read_bytes())
    content[-8] ^= 255
    store.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged: rows 1536 to .* Delete .*000003.json"):
        make(method(folder=tmp_path))
    (tmp_path / "latents" / "latents.parts" / "000003.json").unlink()
    assert_same_array_bits(make(method(folder=tmp_path)).images, made.images, "images")


RUN = """
import os
import sys
from dataclasses import replace
from pathlib import Path
from ddkern.data import ImageDataset
from ddkern.distill import DDOQ, distill
from helpers.codecs import WatchedCodec
from helpers.coresets import make_dataset
from python.distill.methods.test_ddoq import COUNTS, IPC, SHAPE
folder, die_at, *other = sys.argv[1:]
dataset = make_dataset(COUNTS)
if other and os.environ["RANK"] == "1":
    dataset.source.images[0] += 1
codec = WatchedCodec(SHAPE, die_at)
looks, chunks = [], ImageDataset.chunks
def look(dataset, *arguments):
    looks.extend(["look"] * (len(dataset) > 64))
    return chunks(dataset, *arguments)
ImageDataset.chunks = look
made = distill(
    dataset, DDOQ(ipc=IPC, codec=codec, folder=Path(folder)), random_state=3
)
made.save(Path(folder) / "set.safetensors")
print(*codec.calls, *looks)
"""


def start(folder: Path, die_at: str = "", *more: str, **environment: str) -> subprocess.Popen[str]:
    tests = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), die_at, *more],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize(
    ("die_at", "left"),
    [
        ("encode:0", ["encode"] * 4 + ["decode"] * 3),
        ("encode:2", ["encode"] * 2 + ["decode"] * 3),
        ("decode:0", ["decode"] * 3),
        ("decode:2", ["decode"]),
    ],
)
def test_kill_9_loses_the_part_in_work_alone(die_at: str, left: list[str], tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    killed = start(tmp_path, die_at)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "set.safetensors").exists()
    codec = WatchedCodec(SHAPE)
    made = make(method(codec, folder=tmp_path))
    assert codec.calls == left
    assert_same_array_bits(made.images, make(method(WatchedCodec(SHAPE))).images, "images")


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    both = [start(tmp_path, RANK=str(rank), **place) for rank in range(2)]
    calls = []
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        calls.append(out.split())
    assert [c.count("encode") for c in calls] == [2, 2]
    assert [c.count("decode") for c in calls] == [2, 1]
    assert [c.count("look") for c in calls] == [2, 1], "one finds the fingerprint for both"
    made = DistilledSet.load(tmp_path / "set.safetensors")
    alone = make(method(WatchedCodec(SHAPE)))
    assert_same_array_bits(made.images, alone.images, "images")
    assert_same_array_bits(made.sample_weight, alone.sample_weight, "weights")


@pytest.mark.slow
def test_processes_that_see_other_images_are_told(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    first, second = (start(tmp_path, "", "other", RANK=str(rank), **place) for rank in range(2))
    _, err = second.communicate(timeout=120)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert "is another one for process 1 than for the first" in err


def test_several_processes_need_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from ddkern.distill import latent_sets

    monkeypatch.setattr(latent_sets.Workers, "of_environment", classmethod(lambda cls: cls(0, 2)))
    with pytest.raises(ValueError, match="folder=None; several processes need a folder"):
        make(method())


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", [DDOQ, D4M])
def test_wrong_options(kind: Any) -> None:
    codec = IdentityCodec(SHAPE)
    with pytest.raises(ValueError, match="ipc=0"):
        kind(ipc=0, codec=codec)
    with pytest.raises(TypeError, match=r"codec is IdentityCodec; it must be a codec"):
        kind(ipc=1, codec=IdentityCodec)
    with pytest.raises(ValueError, match=r"strength=0.5"):
        kind(ipc=1, codec=codec, strength=0.5)
    pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"teacher is a str; it must be an nn.Module or None"):
        kind(ipc=1, codec=codec, teacher="resnet-18")


@pytest.mark.parametrize("kind", [DDOQ, D4M])
def test_data_that_do_not_fit(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"ipc=6, but class 4 \('class 4'\) of 'made' has 5"):
        make(kind(ipc=6, codec=IdentityCodec(SHAPE)))
    with pytest.raises(ValueError, match=r"codec takes images of shape \(3, 4, 4\), but those"):
        make(kind(ipc=1, codec=IdentityCodec((3, 4, 4))))


def test_wrong_counts() -> None:
    with pytest.raises(ValueError, match="n_init=0"):
        method(n_init=0)
    with pytest.raises(TypeError, match="max_iter=1.5"):
        method(max_iter=1.5)
