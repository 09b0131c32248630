# SPDX-License-Identifier: Apache-2.0
"""Measures of a quantization on the command line: from the file of a run, and of a set's images."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from ddkern.cli.arguments import naming
from ddkern.cli.output import print_table
from ddkern.cli.sets import MOST_CLASSES_SHOWN

if TYPE_CHECKING:
    from ddkern.data import DistilledSet, ImageDataset
    from ddkern.distill import FeatureSpace
    from ddkern.evaluate import QuantizationMeasures

__all__ = ["measure_images", "print_measures", "read_measures"]

_COLUMNS = (
    *("class", "distortion", "W2", "W2 uniform", "gain, %", "residual"),
    *("cells, %", "effective"),
)


def read_measures(path: Path, distilled: DistilledSet) -> QuantizationMeasures:
    """The measures that the run of a set left behind.

    Raises
    ------
    ValueError
        If the file holds something else, or measures of other classes.
    """
    from ddkern.evaluate import QuantizationMeasures

    with naming(str(path)):
        measures = QuantizationMeasures.from_dict(json.loads(path.read_text(encoding="utf-8")))
        if measures.groups.tolist() != list(range(distilled.n_classes)):
            raise ValueError(
                f"it has measures of {len(measures.groups)} groups; they must be the "
                f"{distilled.n_classes} classes of the set"
            )
    return measures


def measure_images(
    distilled: DistilledSet, train: ImageDataset, features: FeatureSpace, *, progress: bool
) -> QuantizationMeasures:
    """How well the images of a set, with its weights, stand for the real ones of their class.

    Parameters
    ----------
    distilled : DistilledSet
    train : ImageDataset
        Real images; no more than one class of their features is in memory.
    features : FeatureSpace
        Fitted to the real images.
    progress : bool
    """
    from ddkern.distill.features import features_of_class
    from ddkern.evaluate import QuantizationMeasures, measure_quantization
    from ddkern.progress import report_progress

    norm, parts = distilled.normalization, []
    started = time.perf_counter()
    with (
        features.opened(train, norm) as embed,
        report_progress(progress, "measures", "classes") as record,
    ):
        for label in range(train.n_classes):
            rows = np.flatnonzero(distilled.labels == label)
            real = features_of_class(train, norm, embed, label)
            parts.append(
                measure_quantization(
                    real,
                    embed(distilled.inputs(rows)).astype(np.float32),  # as real ones are
                    distilled.sample_weight[rows],
                    groups=np.full(len(real), label),
                    centroid_groups=np.full(len(rows), label),
                )
            )
            if record is not None:
                record(label + 1, train.n_classes, time.perf_counter() - started)
    return QuantizationMeasures.joined(parts)


def print_measures(title: str, measures: QuantizationMeasures, names: tuple[str, ...]) -> None:
    """A line a class, as many as are shown, and one for all of them.

    Of two bounds that the digits shown tell apart, the one that makes the gain less is printed,
    with its sign of inequality.
    """
    content = measures.as_dict()
    groups = content["groups"][:MOST_CLASSES_SHOWN]
    typer.echo(title)
    typer.echo()
    print_table(
        _COLUMNS,
        [
            *((names[row["group"]], *_cells(row, row["n_atoms"])) for row in groups),
            ("all", *_cells(content["summary"], float(measures.n_atoms.mean()))),
        ],
    )
    more = len(content["groups"]) - len(groups)
    if more:
        typer.echo(f"and {more} more classes; --json has them all")


def _cells(row: Mapping[str, Any], n_atoms: float) -> tuple[str, ...]:
    gains = [-np.inf if row[name] is None else row[name] for name in ("gain_lower", "gain_upper")]
    lower, upper = (f"{100 * gain:.1f}" for gain in gains)
    return (
        f"{row['distortion']:.4g}",
        _bound("<=", f"{row['w2_upper']:.4g}", f"{row['w2_lower']:.4g}"),
        _bound(">=", f"{row['w2_uniform_lower']:.4g}", f"{row['w2_uniform_upper']:.4g}"),
        _bound(">=", lower, upper),
        f"{row['stationarity']:.2g}",
        f"{_percent(row['mass_min'])}..{_percent(row['mass_max'])}",
        f"{row['effective_atoms']:.2f} of {n_atoms:.4g}",
    )


def _bound(sign: str, shown: str, other: str) -> str:
    return shown if shown == other else f"{sign} {shown}"


def _percent(share: float) -> str:
    """Two digits, and 100 as such."""
    return f"{float(f'{100 * share:.2g}'):g}"
