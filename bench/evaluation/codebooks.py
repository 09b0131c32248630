# SPDX-License-Identifier: Apache-2.0
"""What the masses of cells are worth on CIFAR-10: ``python -m bench.evaluation.codebooks``.

Every class is quantized by k centroids in some space, and the 2-Wasserstein distance from the class
to its centroids with their masses is compared with the one to the same with equal weights.
Spaces are pixels, principal components and, with ``--prior``, latents of an autoencoder.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ddkern
from bench import record
from ddkern.data import ImageDataset, open_dataset
from ddkern.evaluate.measures import measure_quantization
from ddkern.latents import IdentityCodec, PcaCodec, load_codec


def main(arguments: list[str] | None = None) -> int:
    """Measure every space and k, writing the document after each."""
    options = _parse(arguments)
    place = os.environ.get("DDKERN_CIFAR10")
    if place is None:
        raise SystemExit("DDKERN_CIFAR10 is not set: the folder with the parquet files of CIFAR-10")
    train = open_dataset(place, split="train").load()
    command = f"python -m bench.evaluation.codebooks --pca {options.pca}"
    if options.prior is not None:
        command += " --prior PRIOR"
    document = record.new("codebooks", options.threads, command)
    document["data"] = {"name": "cifar10", "train_hash": train.fingerprint()}
    for space, codec in _codecs(train, options).items():
        points = _encode(codec, train)
        for k in options.k:
            start = time.perf_counter()
            q = ddkern.quantize(
                points, k, groups=train.labels, random_state=0, n_threads=options.threads
            )
            seconds = time.perf_counter() - start
            measures = measure_quantization(
                points,
                q.centroids,
                q.weights,
                groups=train.labels,
                centroid_groups=q.groups,
                transport_limit=1 << 30,
            )
            document["lines"].append(
                {
                    "space": space,
                    "features": int(np.prod(codec.latent_shape)),
                    "k": k,
                    "seconds_quantizing": seconds,
                    "measures": measures.as_dict(),
                }
            )
            record.write(document, options.out / "codebooks.json")
            found = measures.summary
            print(f"{space} k={k}: gain {100 * found.gain_lower:.1f} %  [{seconds:.1f} s]")
            sys.stdout.flush()
    return 0


def _codecs(train: ImageDataset, options: argparse.Namespace) -> dict[str, Any]:
    codecs: dict[str, Any] = {
        "pixels": IdentityCodec(train.image_shape),
        f"{options.pca} principal components": PcaCodec.fit(train, options.pca),
    }
    if options.prior is not None:
        codecs["latents"] = load_codec(options.prior, image_shape=train.image_shape)
    return codecs


def _encode(codec: Any, train: ImageDataset) -> NDArray[np.float32]:
    return np.concatenate([codec.encode(images) for _, images in train.chunks(1 << 21)])


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.codebooks")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--pca", type=int, default=256)
    parser.add_argument("--prior", type=Path, help="a folder or file that load_codec reads")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS / "evaluation")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
