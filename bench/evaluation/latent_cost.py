# SPDX-License-Identifier: Apache-2.0
"""What ``ddkern distill`` costs: ``python -m bench.evaluation.latent_cost --prior DIR --run OUT``.

Runs the command on all training images of CIFAR-10 in a process of its own, with a prior that is
there, and records the seconds of each stage and the largest size of the process, beside that of a
process which only loads the models.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import record

# Prints the largest size of a process that has the models, and has encoded and decoded a batch.
MODELS = """
import resource, sys
import numpy as np
import torch
import ddkern.cli
import ddkern.distill
import ddkern.evaluate.measures
from ddkern.latents import load_codec
torch.set_num_threads(int(sys.argv[2]))
codec = load_codec(sys.argv[1], image_shape=(3, 32, 32))
latents = codec.encode(np.zeros((8, 3, 32, 32), np.uint8))
codec.decode(latents, np.arange(8), **codec.decoding(None, None, None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run it and write the document."""
    options = _parse(arguments)
    place = os.environ.get("DDKERN_CIFAR10")
    if place is None:
        raise SystemExit("DDKERN_CIFAR10 is not set: the folder with the parquet files of CIFAR-10")
    if options.run.exists():
        raise SystemExit(f"{options.run} exists already; the times would be those of two runs")
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    document = record.new(
        "latent_cost",
        options.threads,
        f"python -m bench.evaluation.latent_cost --prior PRIOR --run RUN --ipc {options.ipc}",
    )
    models = subprocess.run(
        [sys.executable, "-c", MODELS, str(options.prior), str(options.threads)],
        stdout=subprocess.PIPE,
        check=True,
        env=environment,
    )
    command: list[Any] = ["distill", "--method", "ddoq", "--dataset", place, "--ipc", options.ipc]
    command += ["--prior", options.prior, "--out", options.run, "--quiet"]
    program = "from ddkern.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *map(str, command)], check=True, env=environment)
    made = json.loads((options.run / "run.json").read_text())
    document["lines"].append(
        {
            "images": made["stages"][0]["detail"]["images"],
            "ipc": options.ipc,
            "stages": made["stages"],
            "latent_shape": made["stages"][0]["detail"]["latent_shape"],
            "bytes_of_models": int(models.stdout),
            # Of the larger of the two children, which is the run.
            "bytes_of_run": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        }
    )
    record.write(document, options.out / f"latent-cost-{options.ipc}.json")
    print(json.dumps(document["lines"][0], indent=1))
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.latent_cost")
    parser.add_argument("--prior", type=Path, required=True, help="a folder of ddkern prior fit")
    parser.add_argument("--run", type=Path, required=True, help="a new folder for the run")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS / "evaluation")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
