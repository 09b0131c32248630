# SPDX-License-Identifier: Apache-2.0
"""Small fits that reach every kernel, for a run under compute-sanitizer.

``compute-sanitizer --tool racecheck python -m bench.gpu.sanitize``. Inputs are made on the host, so
that few kernels run but ddkern's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
import warnings

# Without torch's cache every tensor is an allocation of its own: an access beyond it is seen.
os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")

import numpy as np
import torch

import ddkern

# rows of each group, D, k: odd sizes on purpose.
_CASES = (((37, 5, 64), 19, 5), ((70,), 130, 33), ((129, 40), 67, 2))


def main() -> int:
    """Run the fits; 1 where one raises or an assignment is not the nearest."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.sanitize", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no fit after this time")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ddkern.ConvergenceWarning)
    start, failed, done = time.monotonic(), 0, 0
    for algorithm, (case, init), dtype in itertools.product(
        ("streaming", "gram"),
        zip(_CASES, ("k-means++", "random", "array"), strict=True),
        (torch.float32, torch.bfloat16),
    ):
        name = f"{algorithm} {case} {init} {dtype}"
        if time.monotonic() - start > options.seconds:
            print(f"not started: {name}", flush=True)
            continue
        try:
            wrong = _fit(algorithm, case, init, dtype, options.device)
        except Exception as error:  # noqa: BLE001  the other fits are looked at as well
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            failed += 1
            continue
        done += 1
        failed += wrong > 0
        print(f"{name}: {wrong} wrong", flush=True)
    print(f"{done} fits done, {failed} failed")
    return 1 if failed or not done else 0


def _fit(
    algorithm: str,
    case: tuple[tuple[int, ...], int, int],
    init: str,
    dtype: torch.dtype,
    device: str,
) -> int:
    sizes, d, k = case
    rng = np.random.default_rng(sizes[0])
    host = torch.from_numpy(rng.standard_normal((sum(sizes), d)).astype(np.float32)).to(dtype)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    seeds = torch.cat([host[start : start + k].float() for start in starts]).to(device)
    result = ddkern.quantize(
        host.to(device),
        k,
        groups=torch.from_numpy(ids).to(device),
        init=seeds if init == "array" else init,
        algorithm=algorithm,  # type: ignore[arg-type]
        max_iter=4,
        tol=0,
        random_state=0,
    )
    x, labels = host.double().numpy(), torch.as_tensor(result.assignment).cpu().numpy()
    centroids = torch.as_tensor(result.centroids).cpu().double().numpy()
    wrong = 0
    for g in range(len(sizes)):
        own = centroids[g * k : (g + 1) * k]
        squared = ((x[ids == g][:, None] - own) ** 2).sum(-1)
        chosen = squared[np.arange(sizes[g]), labels[ids == g] - g * k]
        wrong += int((chosen > squared.min(1) * (1 + 1e-12)).sum())
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
