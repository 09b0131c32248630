# SPDX-License-Identifier: Apache-2.0
"""``python -m ddkern.demo``: ten classes of handwritten digits, ten weighted centroids each."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from ddkern.kmeans import QuantizeResult, quantize

__all__ = ["format_table", "main"]

_K = 10
_NEEDED = {"sklearn": "scikit-learn", "PIL": "pillow"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ddkern.demo",
        description="Quantize the ten classes of scikit-learn's bundled handwritten digits, print "
        "distortions and masses, and draw the centroids.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where the picture goes (default .)"
    )
    options = parser.parse_args(arguments)
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"The demo needs {' and '.join(missing)}: pip install {' '.join(missing)}")
        return 1

    from sklearn.datasets import load_digits

    from ddkern.report import draw_contact_sheet

    digits = load_digits()
    result = quantize(digits.images.astype("float32"), _K, groups=digits.target, random_state=0)
    print(format_table(result, digits.target.tolist()))
    options.out.mkdir(parents=True, exist_ok=True)
    picture = options.out / "digits_centroids.png"
    draw_contact_sheet(
        result.centroids,
        result.weights,
        result.groups,
        title=f"Handwritten digits: {_K} centroids a class and the share of the class in each cell",
        value_range=(16, 0),  # ink is 16 in this data set; shown dark on light
    ).save(picture)
    print(f"\ncentroids and masses: {picture}")
    return 0


def format_table(result: QuantizeResult, groups: Sequence[int]) -> str:
    """The result as an aligned table, one line a group.

    Parameters
    ----------
    result : QuantizeResult
        With numpy arrays.
    groups : sequence of int
        The group id of each row that was quantized.
    """
    header = (
        f"{'class':>5}  {'rows':>5}  {'distortion':>10}  {'W2':>7}  "
        f"{'least mass':>10}  {'largest':>8}  {'iterations':>10}"
    )
    lines = [header]
    for g, group in enumerate(sorted(set(groups))):
        mass = result.weights[result.groups == group]
        distortion = float(result.distortion[g])
        lines.append(
            f"{group:>5}  {groups.count(group):>5}  {distortion:>10.4f}  "
            f"{math.sqrt(distortion):>7.4f}  {100 * mass.min():>8.2f} %  "
            f"{100 * mass.max():>6.2f} %  {int(result.n_iter[g]):>10}"
        )
    lines.append(
        "\nW2 is the 2-Wasserstein distance between a class and its weighted centroids; "
        "its square\nis the distortion because every centroid carries the mass of its cell."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
