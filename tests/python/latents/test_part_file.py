# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddkern.latents.part_file import PartFile

SHAPE = (10, 3)
VALUES = np.arange(30, dtype=np.float32).reshape(SHAPE)


def open_file(folder: Path, **changes: Any) -> PartFile:
    arguments: dict[str, Any] = {
        "shape": SHAPE,
        "dtype": np.float32,
        "part_rows": 4,
        "conditions": {"seed": 0},
    }
    return PartFile(folder, "a", **arguments | changes)


def fill(file: PartFile) -> None:
    for part in list(file.missing()):
        file.write(part, VALUES[file.rows_of(part)])


def test_parts_in_any_order_make_an_ordinary_file(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    for part in (2, 0, 1):
        file.write(part, VALUES[file.rows_of(part)])
    np.testing.assert_array_equal(file.read(), VALUES)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), VALUES)
    assert not file.read().flags.writeable


def test_a_later_call_makes_what_is_missing(tmp_path: Path) -> None:
    open_file(tmp_path).write(1, VALUES[4:8])
    file = open_file(tmp_path)
    assert list(file.missing()) == [0, 2]
    with pytest.raises(ValueError, match=r"a.npy is not complete: part 0 of 3 is missing"):
        file.read()
    fill(file)
    assert list(open_file(tmp_path).missing()) == []
    np.testing.assert_array_equal(open_file(tmp_path).read(), VALUES)


def test_two_processes_see_each_others_parts(tmp_path: Path) -> None:
    mine, theirs = open_file(tmp_path), open_file(tmp_path)
    mine.write(0, VALUES[:4])
    theirs.write(1, VALUES[4:8])
    assert list(mine.missing()) == list(theirs.missing()) == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": {"seed": 1}}, r"a.npy was made with seed=0; this call has 1. Choose"),
        ({"conditions": {}}, r"made with seed=0; this call has None"),
        ({"shape": (10, 4)}, r"made with shape=\[10, 3\]; this call has \[10, 4\]"),
        ({"part_rows": 5}, r"made with part_rows=4; this call has 5"),
        ({"dtype": np.float16}, r"made with dtype='<f4'; this call has '<f2'"),
    ],
)
def test_other_conditions_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fill(open_file(tmp_path))
    with pytest.raises(ValueError, match=message):
        open_file(tmp_path, **changes)
    np.testing.assert_array_equal(open_file(tmp_path).read(), VALUES)


def test_a_changed_byte_is_found_and_only_its_part_is_made_again(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    fill(file)
    content = bytearray(file.path.read_bytes())
    content[-1] ^= 1
    file.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged: rows 8 to 9 .* Delete .*000002.json to have"):
        file.read()
    assert file.read(verify=False).shape == SHAPE
    (tmp_path / "a.parts" / "000002.json").unlink()
    assert list(file.missing()) == [2]
    fill(file)
    np.testing.assert_array_equal(file.read(), VALUES)


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_damaged_checksum_is_found(content: str, tmp_path: Path) -> None:
    file = open_file(tmp_path)
    fill(file)
    (tmp_path / "a.parts" / "000000.json").write_text(content)
    with pytest.raises(ValueError, match="damaged: rows 0 to 3"):
        file.read()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    with file.path.open("r+b") as opened:
        opened.truncate(100)
    with pytest.raises(ValueError, match=r"a.npy is missing or of another size; delete"):
        open_file(tmp_path)
    file.path.unlink()
    with pytest.raises(ValueError, match=r"a.npy is missing or of another size; delete"):
        open_file(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a.json is damaged"):
        open_file(tmp_path)


def test_a_beginning_that_was_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.write(0, VALUES[:4])
    (tmp_path / "a.json").unlink()
    assert list(open_file(tmp_path).missing()) == [0, 1, 2]


def test_wrong_values_leave_the_part_missing(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    with pytest.raises(ValueError, match=r"part 2 has shape \(4, 3\); it must be \(2, 3\)"):
        file.write(2, VALUES[:4])
    bad = VALUES[4:8].copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 6 of a.npy holds NaN or infinity"):
        file.write(1, bad)
    assert list(file.missing()) == [0, 1, 2]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from ddkern.latents.part_file import PartFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
PartFile(Path(sys.argv[1]), "a", (1000, 100), np.float32, part_rows=10, conditions={})
"""


def test_a_disk_without_room_is_told_at_the_beginning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert not list(tmp_path.rglob("*.npy"))
    # There is room now, and nothing of the first attempt is in the way.
    file = PartFile(tmp_path, "a", (1000, 100), np.float32, part_rows=10, conditions={})
    assert json.loads((tmp_path / "a.json").read_text())["shape"] == [1000, 100]
    assert len(list(file.missing())) == 100
