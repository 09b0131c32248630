# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ddkern.distill import PcaFeatures
from ddkern.distill.options import options_of


@dataclass(frozen=True)
class Record:
    value: Any


def test_plain_values_stay_and_records_become_mappings() -> None:
    assert options_of(Record(3)) == {"value": 3}
    features = PcaFeatures(n_components=2)
    assert options_of(Record(features)) == {"value": {"name": "pca", "n_components": 2}}


def test_digest_tells_values_shapes_and_types_apart() -> None:
    zeros = np.zeros((2, 3), np.float32)
    arrays = [zeros, zeros.T, zeros.view(np.int32), np.zeros((2, 4), np.float32), zeros + 1]
    digests = [options_of(Record(array))["value"] for array in arrays]
    assert len(set(digests)) == len(arrays)
    assert options_of(Record(zeros[:, ::-1]))["value"] == digests[0]
