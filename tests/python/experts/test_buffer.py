# SPDX-License-Identifier: Apache-2.0
"""Files of experts: what is wrong with them is said, and nothing in them is executed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ddkern.experts import ExpertBuffer, import_replay_buffers  # noqa: E402
from ddkern.models import make_model  # noqa: E402

NETWORK = {
    "n_classes": 3,
    "image_size": (8, 8),
    "model": "convnet-d3",
    "model_options": {"width": 4, "norm": "none"},
}


def checkpoint(seed: int) -> list[torch.Tensor]:
    network = make_model(
        "convnet-d3", n_classes=3, image_size=8, seed=seed, **NETWORK["model_options"]
    )
    return [p.detach() for p in network.parameters()]


def write_replay(path: Path, n_experts: int = 2, first: int = 0, n_checkpoints: int = 3) -> None:
    """Write what MTT's code writes: experts, checkpoints, parameters."""
    content = [
        [checkpoint(100 * e + c) for c in range(n_checkpoints)]
        for e in range(first, first + n_experts)
    ]
    torch.save(content, path)


def imported(tmp_path: Path, **changes) -> ExpertBuffer:
    for index in range(2):
        write_replay(tmp_path / f"replay_buffer_{index}.pt", first=2 * index)
    files = sorted(tmp_path.glob("replay_buffer_*.pt"))
    return import_replay_buffers(files, tmp_path / "buffer", **(NETWORK | changes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_replay_buffers_come_in_as_they_are(tmp_path: Path, dtype: str) -> None:
    buffer = imported(tmp_path, dtype=dtype)
    assert (buffer.numbers, buffer.n_checkpoints) == ((0, 1, 2, 3), 3)
    for expert, row in ((0, 0), (1, 2), (3, 1)):
        expected = torch.cat([p.reshape(-1) for p in checkpoint(100 * expert + row)])
        if dtype == "bfloat16":
            expected = expected.bfloat16().float()
        assert torch.equal(buffer.parameters(expert, row), expected)
    assert buffer.accuracies() == {}
    assert "dataset_hash" not in buffer.conditions


def test_parameters_of_torch_are_tensors_too(tmp_path: Path) -> None:
    path = tmp_path / "replay_buffer_0.pt"
    torch.save([[[torch.nn.Parameter(p) for p in checkpoint(c)] for c in range(2)]], path)
    buffer = import_replay_buffers([path], tmp_path / "buffer", **NETWORK)
    assert len(buffer) == 1


def test_an_interrupted_import_goes_on(tmp_path: Path) -> None:
    def stop(progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(tmp_path, progress=stop)
    assert len(ExpertBuffer.open(tmp_path / "buffer")) == 2
    assert len(imported(tmp_path)) == 4


class _Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "replay_buffer_0.pt"
    torch.save([[[_Harmful()]]], path)
    with pytest.raises(ValueError, match="holds more than tensors and plain values"):
        import_replay_buffers([path], tmp_path / "buffer", **NETWORK)
    assert not (tmp_path / "harm").exists()
    assert not (tmp_path / "buffer").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "holds a dict; it must be a list of experts"),
        ([], "must be a list of experts, one at least"),
        ([[]], "expert 0 must be a list of two checkpoints or more"),
        ([[[1.0], [2.0]]], "expert 0, checkpoint 0 must be a list of tensors"),
        ([[[torch.zeros(2)], [torch.zeros(2)]]], r"has tensors of shapes \[\(2,\)\]; the network"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "replay_buffer_0.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        import_replay_buffers([path], tmp_path / "buffer", **NETWORK)


def test_nan_and_unequal_experts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay_buffer_0.pt"
    bad = checkpoint(0)
    bad[0] = torch.full_like(bad[0], torch.nan)
    torch.save([[checkpoint(0), bad]], path)
    with pytest.raises(ValueError, match="expert 0, checkpoint 1 holds NaN"):
        import_replay_buffers([path], tmp_path / "buffer", **NETWORK)
    torch.save([[checkpoint(0)] * 2, [checkpoint(0)] * 3], path)
    with pytest.raises(ValueError, match="expert 1 has 3 checkpoints, others 2"):
        import_replay_buffers([path], tmp_path / "buffer", **NETWORK)
    assert len(ExpertBuffer.open(tmp_path / "buffer")) == 1


def test_files_that_are_missing_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "replay_buffer_0.pt"
    with pytest.raises(FileNotFoundError, match="replay_buffer_0.pt does not exist"):
        import_replay_buffers([path], tmp_path / "buffer", **NETWORK)
    with pytest.raises(ValueError, match="files is empty"):
        import_replay_buffers([], tmp_path / "buffer", **NETWORK)
    write_replay(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="is not a .pt file"):
        import_replay_buffers([path], tmp_path / "buffer", **NETWORK)


def test_a_truncated_expert_is_named(tmp_path: Path) -> None:
    buffer = imported(tmp_path)
    path = buffer.folder / "expert-00002.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    expected = f"expert-00002.bin has {len(whole) - 4} bytes; 3 checkpoints of"
    with pytest.raises(ValueError, match=expected):
        ExpertBuffer.open(buffer.folder)
    with pytest.raises(ValueError, match=expected):
        buffer.parameters(2, 0)
    assert torch.isfinite(buffer.parameters(1, 0)).all()


def test_nan_in_a_checkpoint_is_named(tmp_path: Path) -> None:
    buffer = imported(tmp_path)
    path = buffer.folder / "expert-00001.bin"
    rows = np.memmap(path, np.float32, "r+").reshape(3, -1)
    rows[2, 17] = np.nan
    rows.base.flush()
    assert torch.isfinite(buffer.parameters(1, 1)).all()
    with pytest.raises(ValueError, match="expert-00001.bin holds NaN or infinity in checkpoint 2"):
        buffer.parameters(1, 2)


def test_rows_that_are_not_there(tmp_path: Path) -> None:
    buffer = imported(tmp_path)
    with pytest.raises(ValueError, match=r"number=9; .* has the experts \(0, 1, 2, 3\)"):
        buffer.parameters(9, 0)
    with pytest.raises(ValueError, match="checkpoint=3; it must be"):
        buffer.parameters(0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "has the format 'other' version 1; it must be 'ddkern-experts'"),
        ({"format_version": 9}, "version 9; it must be"),
        ({"n_checkpoints": "many"}, "is not the manifest of a buffer: n_checkpoints"),
        ({"dtype": "int8"}, "is not the manifest of a buffer: dtype='int8'"),
    ],
)
def test_manifests_of_something_else(tmp_path: Path, change: dict, message: str) -> None:
    buffer = imported(tmp_path)
    path = buffer.folder / "experts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ExpertBuffer.open(buffer.folder)


def test_no_buffer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no experts.json; a buffer is a folder"):
        ExpertBuffer.open(tmp_path)
    (tmp_path / "experts.json").write_text("{")
    with pytest.raises(ValueError, match="is not the manifest of a buffer"):
        ExpertBuffer.open(tmp_path)


def test_a_network_of_another_size(tmp_path: Path) -> None:
    buffer = imported(tmp_path)
    path = buffer.folder / "experts.json"
    content = json.loads(path.read_text())
    content["conditions"]["model_options"]["width"] = 8
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"trajectories of \d+ parameters, but convnet-d3 has"):
        ExpertBuffer.open(buffer.folder).network()
