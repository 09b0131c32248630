# SPDX-License-Identifier: Apache-2.0
"""What an image of ImageNet-1K costs: ``python -m bench.evaluation.imagenet_costs``.

The models have the published sizes and random weights, of which time and memory do not depend.
Operations are counted by torch, without carrying them out. The page docs/imagenet.md is written
from the results by ``python -m bench.evaluation.imagenet_report``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import ddkern
from bench import record
from ddkern.data import open_dataset
from ddkern.evaluate.measures import measure_quantization
from ddkern.latents import DitCodec
from ddkern.latents.placement import choose_dtype
from ddkern.training import choose_device

# The autoencoder that Stable Diffusion 1 and DiT share.
AUTOENCODER: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
DIT_XL_2: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "attention_bias": True,
    "sample_size": 32,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
STABLE_DIFFUSION: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
_TEXT = (77, 768)  # tokens and width of its text encoder
_PHOTO = (500, 375)  # a usual size of ImageNet's files


def main(arguments: list[str] | None = None) -> int:
    """Count, measure, write the document."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    document = record.new(
        "imagenet_costs",
        options.threads,
        f"python -m bench.evaluation.imagenet_costs --threads {options.threads} "
        f"--encoded {options.encoded} --decoded {options.decoded} --steps {options.steps}",
    )
    document["versions"] = {"torch": torch.__version__}
    document["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else document["machine"]["cpu"]
    )
    document["operations"] = count_operations()
    document["reading"] = measure_reading()
    document["quantizing"] = measure_quantizing(options.threads)
    document["lines"] = [measure_dit(device, options)]
    name = document["device"].replace(" ", "-").replace("/", "-").lower()
    record.write(document, options.out / f"{name}.json")
    for name in ("operations", "reading", "quantizing", "lines"):
        print(name, document[name])
    return 0


def count_operations() -> dict[str, dict[str, float]]:
    """Multiplications and additions for an image: encoding, a guided step, decoding; parameters."""
    found = {}
    with torch.device("meta"), torch.no_grad():
        autoencoder = AutoencoderKL(**AUTOENCODER)
        transformer = DiTTransformer2DModel(**DIT_XL_2)
        unet = UNet2DConditionModel(**STABLE_DIFFUSION)
        two, step = torch.zeros(2, dtype=torch.int64), torch.tensor(5)
        dit = torch.empty(2, 4, 32, 32)
        latents, text = torch.empty(2, 4, 64, 64), torch.empty(2, *_TEXT)
        found["DiT-XL/2, 256 pixels"] = _operations(
            autoencoder,
            256,
            transformer,
            lambda: transformer(dit, timestep=two, class_labels=two),
        )
        found["Stable Diffusion 1.5, 512 pixels"] = _operations(
            autoencoder, 512, unet, lambda: unet(latents, step, text)
        )
    return found


def _operations(
    autoencoder: Any, side: int, denoiser: Any, step: Callable[[], object]
) -> dict[str, float]:
    image, latents = torch.empty(1, 3, side, side), torch.empty(1, 4, side // 8, side // 8)
    return {
        "side": side,
        "latent_values": 4 * (side // 8) ** 2,
        "encode": _count(lambda: autoencoder.encode(image)),
        "step": _count(step),
        "decode": _count(lambda: autoencoder.decode(latents)),
        "parameters": sum(p.numel() for m in (autoencoder, denoiser) for p in m.parameters()),
    }


def _count(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def measure_dit(device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds for an image through DiT-XL/2 at 256 pixels, and the memory that it takes."""
    torch.manual_seed(0)
    dtype = choose_dtype("auto", device)
    with device:
        autoencoder = AutoencoderKL(**AUTOENCODER).to(dtype)
        transformer = DiTTransformer2DModel(**DIT_XL_2).to(dtype)
    codec = DitCodec(autoencoder, transformer, DPMSolverMultistepScheduler())
    images = np.random.default_rng(0).integers(
        0, 256, (options.encoded, *codec.image_shape), np.uint8
    )
    latents = codec.encode(images[: options.decoded])
    labels = np.arange(len(latents))

    def decode(steps: int, strength: float) -> None:
        codec.decode(latents, labels, strength=strength, steps=steps, guidance=4.0)

    rounds = options.rounds
    encoding = _median(lambda: codec.encode(images), rounds) / len(images)
    plain = _median(lambda: decode(1, 0.0), rounds) / len(latents)
    whole = _median(lambda: decode(options.steps, 1.0), rounds) / len(latents)
    peak = None
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return {
        "model": "DiT-XL/2, 256 pixels",
        "dtype": str(dtype).removeprefix("torch."),
        "batch_size": codec.batch_size,
        "encoded": len(images),
        "decoded": len(latents),
        "seconds_encode": encoding,
        "seconds_step": (whole - plain) / options.steps,
        "seconds_decode": plain,
        "bytes_on_device": peak,
    }


def measure_reading(count: int = 64) -> dict[str, float]:
    """Seconds for a photograph from a JPEG file to 256 x 256 pixels, with the threads there are."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="ddkern-") as temporary:
        folder = Path(temporary) / "photos"
        folder.mkdir()
        for number in range(count):
            coarse = generator.integers(0, 256, (38, 50, 3), np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize(_PHOTO), np.float64)
            noisy = np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{number}.jpg", quality=92)
        size = sum(file.stat().st_size for file in folder.iterdir()) / count
        photos = open_dataset(temporary, size=256)
        seconds = _median(photos.images, 5) / count
    return {"bytes": size, "seconds": seconds, "cpus": len(os.sched_getaffinity(0))}


def measure_quantizing(threads: int, classes: int = 2) -> list[dict[str, float]]:
    """Seconds for a class of 1300 latents of 4096 values: to quantize it, and to measure that."""
    rows, features = 1300, 4096
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), rows)
    # Overlapping clusters in a subspace, and noise around it.
    centres = generator.normal(size=(classes * 16, 32)) @ generator.normal(size=(32, features))
    centres *= 0.03
    chosen = centres[labels * 16 + generator.integers(0, 16, len(labels))]
    latents = (chosen + generator.normal(size=chosen.shape)).astype(np.float32)
    found = []
    for k in (10, 50):
        start = time.perf_counter()
        q = ddkern.quantize(latents, k, groups=labels, random_state=0, n_threads=threads)
        middle = time.perf_counter()
        measure_quantization(
            latents, q.centroids, q.weights, groups=labels, centroid_groups=q.groups
        )
        seconds = (middle - start) / classes, (time.perf_counter() - middle) / classes
        found.append(
            {
                "k": k,
                "iterations": float(np.mean(q.n_iter)),
                "seconds_quantize": seconds[0],
                "seconds_measure": seconds[1],
            }
        )
    return found


def _median(work: Callable[[], object], rounds: int) -> float:
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.imagenet_costs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--encoded", type=int, default=1024, help="images at a time")
    parser.add_argument("--decoded", type=int, default=256, help="images at a time")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler, to find what one is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS / "imagenet")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
