# SPDX-License-Identifier: Apache-2.0
"""Size of gradients through steps, by the norm of the network: ``python -m bench.matching.norms``.

An expert (ConvNet-D3 of width 32) learns the digits of scikit-learn, 8 x 8 pixels, so that its last
norm sees maps of 2 x 2. A student goes from its start towards a later epoch on one image a class;
the gradient of the distance with respect to the images is taken exactly, and as TESLA does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench import record
from ddkern.data import Normalization, open_dataset
from ddkern.distill import Random, distill
from ddkern.distill.unroll import Unroll
from ddkern.experts import ExpertBuffer, train_experts
from ddkern.training import Decay, Optimizer, Recipe

NORMS = ("instance", "group", "layer")
RATES = (0.005, 0.02, 0.05, 0.1)
STEPS, EPOCHS, STARTS = 15, 2, (0, 1, 2)
RECIPE = Recipe(
    epochs=4,
    batch_size=64,
    optimizer=Optimizer(name="sgd", lr=0.1),
    decay=Decay(kind="constant"),
)


def main(arguments: list[str] | None = None) -> int:
    """Train an expert with every norm, take the gradients, write the document."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    train = open_dataset("digits", split="train")
    normalization = Normalization.fit(train)
    document = record.new("matching_norms", options.threads, "python -m bench.matching.norms")
    document["versions"] = {"torch": torch.__version__}
    document |= {"steps": STEPS, "epochs": EPOCHS, "starts": list(STARTS)}
    drawn = distill(train, Random(ipc=1), normalization=normalization, random_state=0)
    images, labels = torch.from_numpy(drawn.inputs()), torch.from_numpy(drawn.labels)
    for norm in NORMS:
        with tempfile.TemporaryDirectory() as folder:
            experts = train_experts(
                train,
                folder,
                n_experts=1,
                normalization=normalization,
                model_options={"width": 32, "norm": norm},
                recipe=RECIPE,
                precision="float32",
                device="cpu",
            )
            for rate in RATES:
                line = {"norm": norm, "lr": rate} | _gradients(experts, images, labels, rate)
                document["lines"].append(line)
                print(line, flush=True)
                record.write(document, options.out)
    return 0


def _gradients(
    experts: ExpertBuffer, images: torch.Tensor, labels: torch.Tensor, rate: float
) -> dict[str, Any]:
    """Sizes of both gradients from each start, and the distance."""
    found: dict[str, Any] = {"distance": [], "exact": [], "tesla": []}
    for start in STARTS:
        for gradient in ("exact", "tesla"):
            x = images.clone().requires_grad_()
            unroll = Unroll(
                model=experts.network(),
                batches=[torch.arange(len(images))] * STEPS,
                gradient=gradient,
            )
            distance = unroll.distance(
                experts.parameters(0, start),
                experts.parameters(0, start + EPOCHS),
                x,
                labels,
                rate,
            )
            distance.backward()
            assert x.grad is not None
            found[gradient].append(float(x.grad.norm()))
        found["distance"].append(float(distance.detach()))
    return found


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.matching.norms", description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS / "matching" / "norms.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
