# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("pyarrow")

from pyarrow import parquet

from ddkern.data import open_dataset, save_parquet
from helpers.distilled import NAMES, make_set


@pytest.mark.parametrize("kind", ["pixels", "floats"])
def test_our_reader_reads_it_back(kind: str, tmp_path: Path) -> None:
    made = make_set(kind)
    save_parquet(made, tmp_path / "set.parquet")
    data = open_dataset(tmp_path / "set.parquet")
    assert data.class_names == NAMES
    np.testing.assert_array_equal(data.labels, made.labels)
    np.testing.assert_array_equal(data.images(), made.pixels())
    table = parquet.read_table(tmp_path / "set.parquet")
    assert table["sample_weight"].to_pylist() == made.sample_weight.tolist()
    soft = np.array(table["soft_label"].to_pylist(), np.float32)
    np.testing.assert_array_equal(soft, made.soft_labels)
    assert [item.name for item in tmp_path.iterdir()] == ["set.parquet"]


def test_without_soft_labels(tmp_path: Path) -> None:
    save_parquet(make_set("pixels", soft_labels=None), tmp_path / "set.parquet")
    assert parquet.read_schema(tmp_path / "set.parquet").names == [
        "image",
        "label",
        "sample_weight",
    ]


READ = """
import json, sys
import datasets
import numpy as np
loaded = datasets.load_dataset("parquet", data_files=sys.argv[1], split="train")
print(json.dumps({
    "names": loaded.features["label"].names,
    "soft": loaded[0]["soft_label"],
    "rows": [(r["label"], r["sample_weight"], np.asarray(r["image"]).tolist()) for r in loaded],
}))
"""


def test_datasets_reads_it_offline(tmp_path: Path) -> None:
    if find_spec("datasets") is None:
        pytest.skip("the package datasets is not installed; it reads the exported file")
    made = make_set("pixels")
    save_parquet(made, tmp_path / "set.parquet")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "set.parquet")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["names"] == list(NAMES)
    np.testing.assert_array_equal(np.float32(found["soft"]), made.soft_labels[0])
    assert [row[0] for row in found["rows"]] == made.labels.tolist()
    assert [row[1] for row in found["rows"]] == made.sample_weight.tolist()
    pixels = np.array([row[2] for row in found["rows"]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(pixels, made.pixels())
