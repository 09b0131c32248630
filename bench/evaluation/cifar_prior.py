# SPDX-License-Identifier: Apache-2.0
"""A prior for CIFAR-10 that a CPU can bear: ``python -m bench.evaluation.cifar_prior --out DIR``.

The recipe that :class:`ddkern.priors.PriorRecipe` has for images of this size is one for a GPU. The
networks here are a tenth of it, and what comes out is as far as half an hour on two cores goes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from ddkern.data import open_dataset
from ddkern.priors import AutoencoderRecipe, DiffusionRecipe, PriorRecipe, fit_prior

RECIPE = PriorRecipe(
    autoencoder=AutoencoderRecipe(channels=(16, 32, 64), steps=1000, batch_size=64, lr=2e-3),
    diffusion=DiffusionRecipe(
        layers=6, heads=4, head_size=48, patch_size=2, ema=0.999, steps=4000, batch_size=64, lr=5e-4
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Fit it, or go on with it."""
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.cifar_prior")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--effort", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    place = os.environ.get("DDKERN_CIFAR10")
    if place is None:
        raise SystemExit("DDKERN_CIFAR10 is not set: the folder with the parquet files of CIFAR-10")
    train, test = (open_dataset(place, split=split).load() for split in ("train", "test"))
    recipe = RECIPE.shortened(options.effort)
    fitted = fit_prior(
        train, options.out, recipe, test=test, precision=options.precision, progress=True
    )
    print(dict(fitted.figures), dict(fitted.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
