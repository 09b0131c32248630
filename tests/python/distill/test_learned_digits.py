# SPDX-License-Identifier: Apache-2.0
"""Learned images against chosen ones, on digits, by networks that see only those."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from ddkern.data import DistilledSet, Normalization, open_dataset
from ddkern.distill import DC, MTT, KMeansNearest, Random, distill
from ddkern.evaluate import evaluate
from ddkern.experts import train_experts
from ddkern.training import Decay, Optimizer, Recipe

TRAIN, TEST = open_dataset("digits", split="train"), open_dataset("digits", split="test")
NORMALIZATION = Normalization.fit(TRAIN)

# Instance norms of maps of 2 x 2 have derivatives that explode where a corner of a digit is blank.
NETWORK = {"width": 32, "norm": "group"}


def accuracy(distilled: DistilledSet) -> float:
    """Return that of two networks of the protocol for small machines."""
    found = evaluate(
        distilled,
        TEST,
        "small",
        model="convnet-d3",
        model_options={"width": 64, "norm": "group"},
        n_networks=2,
        n_train=len(TRAIN),
        precision="float32",
        device="cpu",
    )
    return found.mean


def learned(method: object) -> DistilledSet:
    return distill(TRAIN, method, normalization=NORMALIZATION, random_state=0)


@pytest.mark.slow
def test_one_image_a_class(tmp_path: Path) -> None:
    experts = train_experts(
        TRAIN,
        tmp_path,
        n_experts=4,
        normalization=NORMALIZATION,
        model_options=NETWORK,
        recipe=Recipe(
            epochs=4,
            batch_size=64,
            optimizer=Optimizer(name="sgd", lr=0.1),
            decay=Decay(kind="constant"),
        ),
        precision="float32",
        device="cpu",
    )
    mtt = MTT(
        ipc=1,
        experts=experts,
        iterations=50,
        student_steps=15,
        expert_epochs=2,
        max_start_epoch=3,
        student_lr=0.1,
        lr_images=300,
        lr_student_lr=1e-3,
        augment=None,
        device="cpu",
    )
    dc = DC(ipc=1, iterations=30, model_options=NETWORK, device="cpu")
    chosen = max(accuracy(learned(method)) for method in (Random(ipc=1), KMeansNearest(ipc=1)))
    assert accuracy(learned(mtt)) > chosen + 0.08
    assert accuracy(learned(dc)) > chosen + 0.04
