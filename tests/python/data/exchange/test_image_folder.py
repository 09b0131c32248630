# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from ddkern.data import DistilledSet, Normalization, open_dataset, save_image_folder
from helpers.distilled import make_set


def test_tree_and_table(tmp_path: Path) -> None:
    made = make_set("pixels")
    save_image_folder(made, tmp_path / "out")
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert names == [
        *("0_cat/1.png", "0_cat/3.png"),
        *("1_dog_wolf/2.png", "1_dog_wolf/4.png"),
        *("2_owl/0.png", "2_owl/5.png"),
    ]
    with (tmp_path / "out" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"][-5:] for row in rows] == [f"{i}.png" for i in range(6)]
    assert [int(row["label"]) for row in rows] == made.labels.tolist()
    assert [row["class_name"] for row in rows][:3] == ["owl", "cat", "dog/wolf"]
    assert [float(row["sample_weight"]) for row in rows] == made.sample_weight.tolist()
    soft = np.array([json.loads(row["soft_label"]) for row in rows], np.float32)
    np.testing.assert_array_equal(soft, made.soft_labels)


def test_names_sort_as_numbers_do(tmp_path: Path) -> None:
    images = np.zeros((120, 1, 2, 2), np.uint8)
    images[:, 0, 0, 0] = np.arange(120)
    made = DistilledSet(images, np.arange(120) // 10, normalization=Normalization.identity(1))
    save_image_folder(made, tmp_path / "out")
    read = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(read.images(), images)
    np.testing.assert_array_equal(read.labels, made.labels)
    assert read.class_names[:3] == ("00_0", "01_1", "02_2")


@pytest.mark.parametrize("kind", ["floats", "zca", "parts"])
def test_pixels_of_learned_images(kind: str, tmp_path: Path) -> None:
    made = make_set(kind)
    save_image_folder(made, tmp_path / "out")
    order = np.argsort(made.labels, kind="stable")
    np.testing.assert_array_equal(open_dataset(tmp_path / "out").images(), made.pixels()[order])


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="needs a folder that is new or empty"):
        save_image_folder(make_set(), tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["mine.txt"]


READ = """
import json, sys
import datasets
import numpy as np
loaded = datasets.load_dataset("imagefolder", data_dir=sys.argv[1], split="train")
rows = [
    (r["label"], r["class_name"], r["sample_weight"], np.asarray(r["image"]).tolist())
    for r in loaded
]
print(json.dumps(rows))
"""


def test_datasets_reads_it_offline(tmp_path: Path) -> None:
    if find_spec("datasets") is None:
        pytest.skip("the package datasets is not installed; it reads the exported folder")
    made = make_set("pixels")
    save_image_folder(made, tmp_path / "out")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = {json.dumps(row) for row in json.loads(done.stdout)}
    expected = {
        json.dumps(
            [
                int(made.labels[i]),
                made.class_names[made.labels[i]],
                float(made.sample_weight[i]),
                made.pixels([i])[0].transpose(1, 2, 0).tolist(),
            ]
        )
        for i in range(6)
    }
    assert found == expected
