# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddkern.distill import Forgetting, distill
from helpers.coresets import make_dataset, rows_by_class

DATASET = make_dataset((7, 4, 12))


@given(
    ipc=st.integers(1, 4),
    scores=st.lists(
        st.sampled_from([0.0, 1.0, 2.0, 5.0, np.inf]), min_size=len(DATASET), max_size=len(DATASET)
    ),
)
def test_most_forgotten_first_ties_by_row(ipc: int, scores: list[float]) -> None:
    method = Forgetting(ipc=ipc, scores=np.array(scores))
    chosen = rows_by_class(distill(DATASET, method, random_state=0), DATASET)
    for label, rows in enumerate(chosen):
        own = [scores[row] for row in DATASET.rows_of_class(label)]
        assert rows == sorted(range(len(own)), key=lambda i: (-own[i], i))[:ipc]


def test_scores_may_be_counts_of_any_kind() -> None:
    torch = pytest.importorskip("torch")
    counts = np.random.default_rng(0).integers(0, 4, len(DATASET))
    made = [
        distill(DATASET, Forgetting(ipc=3, scores=scores), random_state=0)
        for scores in (counts, torch.tensor(counts, dtype=torch.int32), counts.astype(np.float32))
    ]
    assert len({str(m.provenance.options) for m in made}) == 1


def test_scores_are_kept_as_they_were() -> None:
    scores = np.arange(float(len(DATASET)))
    method = Forgetting(ipc=1, scores=scores)
    before = method.options()
    scores[:] = 0
    assert method.options() == before
    assert method.scores[-1] == len(DATASET) - 1
    with pytest.raises(ValueError, match="read-only"):
        method.scores[0] = 1


def test_options_tell_scores_apart() -> None:
    zeros = Forgetting(ipc=1, scores=np.zeros(3)).options()
    assert zeros["scores"].startswith("sha256:")
    assert zeros == Forgetting(ipc=1, scores=np.zeros(3)).options()
    assert zeros != Forgetting(ipc=1, scores=np.ones(3)).options()
    assert zeros != Forgetting(ipc=1, scores=np.zeros(4)).options()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0, 1, np.nan, np.nan], r"scores\[2\] is NaN; it must be a number"),
        (np.zeros((3, 1)), r"scores has shape \(3, 1\); it must hold one number an image"),
        (np.float64(3), r"scores has shape \(\); it must hold one number an image"),
    ],
)
def test_bad_scores(scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Forgetting(ipc=1, scores=np.array(scores))


@pytest.mark.parametrize("difference", [-1, 1])
def test_wrong_number_of_scores(difference: int) -> None:
    method = Forgetting(ipc=1, scores=np.zeros(len(DATASET) + difference))
    with pytest.raises(ValueError, match=rf"\({23 + difference},\); .* each of the 23 images"):
        distill(DATASET, method, random_state=0)
