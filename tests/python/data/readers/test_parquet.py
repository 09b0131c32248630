# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")

import pyarrow as pa
import pyarrow.parquet as pq

from ddkern.data import open_dataset
from ddkern.data.readers.parquet import _Table
from helpers.cifar10 import VARIABLE, train_images, train_labels
from helpers.datasets import NAMES, make_images, png, write_parquet

IMAGES, LABELS = make_images()
CELLS = [png(image) for image in IMAGES]


def test_images_labels_and_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", CELLS, LABELS)
    data = open_dataset(tmp_path / "data.parquet")
    assert data.class_names == NAMES
    assert data.split is None
    np.testing.assert_array_equal(data.labels, LABELS)
    np.testing.assert_array_equal(data.images(), IMAGES)
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_array_equal(data.images(order), IMAGES[order])
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.images([5]), IMAGES[[5]])


def test_files_of_a_split_follow_one_another(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", CELLS[:5], LABELS[:5])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", CELLS[5:9], LABELS[5:9])
    write_parquet(tmp_path / "test" / "0000.parquet", CELLS[9:], LABELS[9:])
    train = open_dataset(tmp_path)
    assert train.split == "train"
    np.testing.assert_array_equal(train.images([8, 0, 4, 5]), IMAGES[[8, 0, 4, 5]])
    assert train.source.name_row(6).endswith("train-00001-of-00002.parquet, row 1")
    np.testing.assert_array_equal(open_dataset(tmp_path, split="test").labels, LABELS[9:])
    with pytest.raises(ValueError, match="no split 'extra'; its splits are 'train', 'test'"):
        open_dataset(tmp_path, split="extra")


def test_opening_decodes_one_image_and_reading_one_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "data.parquet", CELLS, LABELS, group=4)
    groups = []
    original = _Table.group_images

    def counted(table: _Table, group: int) -> object:
        groups.append(group)
        return original(table, group)

    monkeypatch.setattr(_Table, "group_images", counted)
    data = open_dataset(tmp_path / "data.parquet")
    assert groups == [0]
    data.images([9, 1, 8])
    assert groups == [0, 2]  # the first one is still at hand
    groups.clear()
    data.images([8])
    data.images([10])
    assert groups == []


def test_plain_bytes_and_unknown_names(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    table = {"picture": pa.array(CELLS, pa.binary()), "y": pa.array(LABELS, pa.int32())}
    pq.write_table(pa.table(table), path)
    data = open_dataset(path)
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(data.images(), IMAGES)


def test_columns_are_chosen_where_several_fit(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    other = (LABELS + 1) % 3
    table = pa.table(
        {
            "a": pa.array(CELLS, pa.binary()),
            "b": pa.array(CELLS[::-1], pa.binary()),
            "fine": pa.array(LABELS),
            "coarse": pa.array(other),
        }
    )
    pq.write_table(table, path)
    with pytest.raises(ValueError, match=r"2 columns could be the image_column; .* Name it with"):
        open_dataset(path, label_column="fine")
    with pytest.raises(ValueError, match="fine, coarse could all be the labels; choose with"):
        open_dataset(path, image_column="a")
    with pytest.raises(ValueError, match="label_column='a' is not such a column"):
        open_dataset(path, image_column="a", label_column="a")
    data = open_dataset(path, image_column="b", label_column="coarse")
    np.testing.assert_array_equal(data.labels, other)
    np.testing.assert_array_equal(data.images([0]), IMAGES[[-1]])


def test_corrupt_image_is_named_by_file_and_row(tmp_path: Path) -> None:
    cells = [*CELLS]
    cells[9] = cells[9][:30]
    write_parquet(tmp_path / "data.parquet", cells, LABELS)
    data = open_dataset(tmp_path / "data.parquet")
    data.images([8, 10])
    with pytest.raises(ValueError, match=r"data\.parquet, row 9: corrupt image"):
        data.images([8, 9])
    with pytest.raises(ValueError, match=r"data\.parquet, row 9: corrupt image"):
        data.check()


def test_missing_image(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", [*CELLS[:6], None, *CELLS[7:]], LABELS)
    with pytest.raises(ValueError, match=r"data\.parquet, row 6: the image is missing"):
        open_dataset(tmp_path / "data.parquet").check()


def test_missing_label(tmp_path: Path) -> None:
    labels = [*LABELS.tolist()]
    labels[7] = None
    write_parquet(tmp_path / "data.parquet", CELLS, labels)
    with pytest.raises(ValueError, match=r"data\.parquet, row 7: the label is missing"):
        open_dataset(tmp_path / "data.parquet")


def test_label_out_of_range_in_the_second_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", CELLS[:6], LABELS[:6])
    write_parquet(tmp_path / "train-1.parquet", CELLS[6:], [*LABELS[6:-1], 3])
    with pytest.raises(ValueError, match=r"train-1\.parquet, row 5: label 3 is out of range"):
        open_dataset(tmp_path)


def test_empty_class(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", CELLS, LABELS, [*NAMES, "yak"])
    with pytest.raises(ValueError, match=r"data\.parquet: class 3 \('yak'\) is empty"):
        open_dataset(tmp_path / "data.parquet")


def test_mixed_sizes(tmp_path: Path) -> None:
    cells = [*CELLS]
    cells[2] = png(np.zeros((3, 7, 5), np.uint8))
    write_parquet(tmp_path / "data.parquet", cells, LABELS)
    message = r"row 2: mixed sizes: the image is 7 x 5 and .*row 0 is 6 x 5 \(height x width\)"
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path / "data.parquet").check()
    assert open_dataset(tmp_path / "data.parquet", size=4).images().shape == (12, 3, 4, 4)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(ValueError, match=r"data\.parquet is not a parquet file"):
        open_dataset(tmp_path)


PEAK = """
import re, sys
from pathlib import Path
from ddkern.data import open_dataset

def peak():
    # Unlike ru_maxrss, this does not begin with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) >> 10

def read(path):
    return sum(len(images) for _, images in open_dataset(path).chunks(1 << 22))

read(sys.argv[1])  # what pyarrow and Pillow take once
before = peak()
print(read(sys.argv[2]), peak() - before)
"""


def test_memory_holds_one_row_group_of_many(tmp_path: Path) -> None:
    # 800 rows of 88 KB are 69 MiB; a row group of 40 is a twentieth of it.
    cell = png(np.random.default_rng(0).integers(0, 256, (3, 170, 170), np.uint8))
    paths = [tmp_path / "small.parquet", tmp_path / "large.parquet"]
    for path, rows in zip(paths, (2, 800), strict=True):
        table = pa.table({"image": pa.array([cell] * rows, pa.binary()), "label": [0] * rows})
        pq.write_table(table, path, row_group_size=40, use_dictionary=False, compression="none")
        assert path.stat().st_size > rows * len(cell)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, paths)], capture_output=True, text=True, check=True
    )
    images, mebibytes = map(int, done.stdout.split())
    assert images == 800
    assert mebibytes < 40


def test_cifar10() -> None:
    labels = train_labels()
    data = open_dataset(os.environ[VARIABLE])
    assert data.split == "train"
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    np.testing.assert_array_equal(data.labels, labels)
    rows = np.random.default_rng(0).integers(0, 50000, 200)
    np.testing.assert_array_equal(data.images(rows), train_images(rows).transpose(0, 3, 1, 2))
    assert len(open_dataset(os.environ[VARIABLE], split="test")) == 10000
