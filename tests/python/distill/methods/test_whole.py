# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from ddkern.distill import distill, make_method
from helpers.coresets import RAGGED, make_dataset


def test_all_images_class_after_class() -> None:
    dataset = make_dataset()
    made = distill(dataset, make_method("whole"), random_state=0)
    assert made.class_counts.tolist() == list(RAGGED)
    order = np.argsort(dataset.labels, kind="stable")
    np.testing.assert_array_equal(made.images, dataset.images(order))
    np.testing.assert_array_equal(made.labels, dataset.labels[order])
    assert made.provenance.options == {"rows": order.tolist()}
    assert (made.sample_weight == 1).all()
