# SPDX-License-Identifier: Apache-2.0
"""From results to docs/imagenet.md: ``python -m bench.evaluation.imagenet_report`` (``--check``).

The page depends on the files in bench/results/imagenet, and on nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench import record
from bench.pages import table, write_or_check

PAGE = Path("docs/imagenet.md")

IMAGES, CLASSES, FILES_GB = 1_281_167, 1000, 138
STRENGTH, STEPS = 0.7, 50
_DENOISED = round(STRENGTH * STEPS)
_IPC = (10, 50)
_GPUS = (1, 8)

# As they were decoded, in the set, and of the nearest real ones.
_COPIES = 3

_INTRODUCTION = f"""\
What DDOQ takes for the {IMAGES:,} training images of ImageNet-1K, before it is begun. Operations
and bytes follow from the sizes of the models. All seconds of a line were measured on the machine
that it names. `ddkern distill --dry-run` measures yours."""

_COMMANDS = """\
On one GPU, with the training images in a folder a class, or in parquet files:

```sh
ddkern distill --method ddoq --dataset imagenet --size 256 --ipc 50 --prior facebook/DiT-XL-2-256 \\
    --normalization imagenet --out imagenet-ddoq
```

On eight, which give the same file as one does where their batches are of one size:

```sh
torchrun --standalone --nproc-per-node 8 --no-python ddkern distill --method ddoq \\
    --dataset imagenet --size 256 --ipc 50 --prior facebook/DiT-XL-2-256 \\
    --normalization imagenet --out imagenet-ddoq
```

A process takes every eighth part of 512 images to encode and of 32 latents to decode. The first
one finds the fingerprint of the images, quantizes and writes. A command that ended, whatever ended
it, is repeated and goes on from the last part. `--size` makes one size of all images, and
`--normalization imagenet` saves looking at all of them once more. Rows of the label table are taken
in the order of the class folders, which for the folders of ImageNet is that of the model."""

_WORK = f"""\
Multiplications and additions, as torch counts them, with {_DENOISED} of {STEPS} steps (strength
{STRENGTH:g}) and guidance."""

_READING = """\
Every image is decoded twice: for the fingerprint, by which a repeated command knows that nothing
was exchanged, and to be encoded. Up to 16 threads a process decode while the GPU works, so encoding
waits for files where a GPU takes images faster than these give them. Here a JPEG file of 500 x 375
pixels becomes 256 x 256 ones; the files were in memory, and a disk may be slower."""

_QUANTIZATION = f"""\
A class of 1300 latents of 4096 values (16 overlapping clusters), until Lloyd's
iteration has converged, and what `measures.json` takes. Classes do not touch each other, so
{CLASSES} take {CLASSES} times as long. The CPU quantizes, in the first process; `torchrun` gives it
one thread unless OMP_NUM_THREADS says more. What a GPU takes for latents that lie there already is
in [benchmarks.md](benchmarks.md#on-a-gpu)."""

_MEASURED = """\
Milliseconds for an image in a batch, with DPM-Solver++; a step is one call of the transformer with
the image twice, for guidance. *Together* is a plan: the fingerprint and the quantization, by the
first of the processes on its CPU, with what measuring it takes; encoding, or reading where that
takes longer; decoding. Devices share encoding and decoding, and the CPU is one for all of them."""

_NO_GPU = """\
No GPU has been measured with these models yet. `python -m bench.evaluation.imagenet_costs` does it
in some minutes."""


def render(costs: list[dict[str, Any]]) -> str:
    """Return the text of the page from documents of :mod:`bench.evaluation.imagenet_costs`."""
    if not costs:
        raise SystemExit("there are no results in bench/results/imagenet: run imagenet_costs first")
    operations = costs[-1]["operations"]
    parts = [
        "# Planning ImageNet-1K",
        "<!-- Written by `python -m bench.evaluation.imagenet_report`: do not edit. -->",
        _INTRODUCTION,
        "## Commands",
        _COMMANDS,
        "## Disk and memory",
        _sizes(operations),
        _memory(operations),
        "## Work",
        _WORK,
        _work(operations),
        "## Reading",
        _READING,
        _reading(costs),
        "## Quantization",
        _QUANTIZATION,
        _quantization(costs),
        "## Time",
        _MEASURED,
        _times(costs),
        "" if any(_on_gpu(document) for document in costs) else _NO_GPU,
        "Made by " + "; ".join(f"`{document['command']}`" for document in costs) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sizes(operations: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, found in operations.items():
        rows.append(
            [
                name,
                f"{4 * found['latent_values'] * IMAGES / 1e9:.0f} GB",
                *(
                    f"{_COPIES * 3 * found['side'] ** 2 * ipc * CLASSES / 1e9:.1f} GB, "
                    f"{4 * found['latent_values'] * ipc * CLASSES / 1e9:.1f} GB"
                    for ipc in _IPC
                ),
            ]
        )
    head = ["model", "latents", *(f"images and centroids, {ipc} a class" for ipc in _IPC)]
    return table(head, rows)


def _memory(operations: dict[str, dict[str, float]]) -> str:
    latents = ", ".join(
        f"{4 * found['latent_values'] * IMAGES / 1e9:.0f} GB for {name}"
        for name, found in operations.items()
    )
    weights = ", ".join(
        f"{2 * found['parameters'] / 1e9:.1f} GB for {name}" for name, found in operations.items()
    )
    return (
        f"The files of the images are about {FILES_GB} GB. Latents are a memory map, of which "
        "encoding holds a part of 512; quantization is fastest where all of it stays in memory "
        f"({latents}). Images lie on disk as they were decoded, in the set, and those of the "
        "nearest real ones; the first process holds them in memory. Weights of autoencoder and "
        f"denoiser take {weights} in float16, and a batch fills up to half of what is free beside "
        "them."
    )


def _work(operations: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, found in operations.items():
        decoded = found["decode"] + _DENOISED * found["step"]
        rows.append(
            [
                name,
                f"{found['encode'] / 1e12:.2f}",
                f"{decoded / 1e12:.1f}",
                f"{found['encode'] * IMAGES / 1e18:.2f}",
                *(f"{decoded * ipc * CLASSES / 1e18:.2f}" for ipc in _IPC),
            ]
        )
    head = ["model", "encode an image (10^12)", "denoise and decode one (10^12)"]
    every = [f"{ipc} a class decoded (10^18)" for ipc in _IPC]
    return table([*head, "all images encoded (10^18)", *every], rows)


def _reading(costs: list[dict[str, Any]]) -> str:
    rows = [
        [
            document["machine"]["cpu"],
            str(document["reading"]["cpus"]),
            f"{document['reading']['bytes'] / 1e3:.0f}",
            f"{1e3 * document['reading']['seconds']:.1f}",
            f"{document['reading']['seconds'] * IMAGES / 3600:.1f}",
        ]
        for document in costs
    ]
    head = ["CPU", "hardware threads", "kB a file", "ms an image", "hours for all, once"]
    return table(head, rows)


def _quantization(costs: list[dict[str, Any]]) -> str:
    rows = [
        [
            document["machine"]["cpu"],
            str(document["threads"]),
            str(line["k"]),
            f"{line['iterations']:.0f}",
            f"{1e3 * line['seconds_quantize']:.0f}",
            f"{1e3 * line['seconds_measure']:.0f}",
            f"{CLASSES * (line['seconds_quantize'] + line['seconds_measure']) / 60:.1f}",
        ]
        for document in costs
        for line in document["quantizing"]
    ]
    head = ["CPU", "threads", "centroids", "iterations", "quantize (ms)", "measure (ms)"]
    return table([*head, f"minutes for {CLASSES} classes"], rows)


def _times(costs: list[dict[str, Any]]) -> str:
    rows = []
    for document in costs:
        (line,) = document["lines"]
        gpus = _GPUS if _on_gpu(document) else (1,)
        peak = line["bytes_on_device"]
        rows.append(
            [
                document["device"],
                line["dtype"],
                f"{1e3 * line['seconds_encode']:.1f}",
                f"{1e3 * line['seconds_step']:.1f}",
                f"{1e3 * line['seconds_decode']:.1f}",
                "" if peak is None else f"{peak / 1e9:.1f} GB",
                " and ".join(map(str, gpus)),
                *(", ".join(_duration(_together(document, ipc, n)) for n in gpus) for ipc in _IPC),
            ]
        )
    head = ["DiT-XL/2, 256 pixels on", "type", "encode (ms)", "step (ms)", "decode (ms)", "memory"]
    together = [f"together, {ipc} a class" for ipc in _IPC]
    return table([*head, "devices", *together], rows)


def _together(document: dict[str, Any], ipc: int, devices: int) -> float:
    """Seconds of a whole run."""
    (line,) = document["lines"]
    reading = IMAGES * document["reading"]["seconds"]
    (quantizing,) = (entry for entry in document["quantizing"] if entry["k"] == ipc)
    on_cpu = CLASSES * (quantizing["seconds_quantize"] + quantizing["seconds_measure"])
    encoding = max(IMAGES * line["seconds_encode"] / devices, reading)
    one = line["seconds_decode"] + _DENOISED * line["seconds_step"]
    return float(reading + encoding + on_cpu + CLASSES * ipc * one / devices)


def _on_gpu(document: dict[str, Any]) -> bool:
    return bool(document["device"] != document["machine"]["cpu"])


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 100 else f"{hours / 24:.0f} days"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say whether it is up to date."""

    def text() -> str:
        files = sorted((record.RESULTS / "imagenet").glob("*.json"))
        return render([json.loads(file.read_text()) for file in files])

    return write_or_check("bench.evaluation.imagenet_report", PAGE, text, arguments)


if __name__ == "__main__":
    sys.exit(main())
