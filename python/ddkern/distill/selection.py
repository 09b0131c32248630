# SPDX-License-Identifier: Apache-2.0
"""What all coresets share: real images, chosen class by class, as a distilled set."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddkern.data import DistilledSet, ImageDataset, Normalization, Provenance
from ddkern.distill.features import FeatureSpace, features_of_class
from ddkern.kmeans import assign, quantize
from ddkern.progress import ProgressArgument, report_progress

__all__ = [
    "Choice",
    "check_class_counts",
    "nearest_to_centroids",
    "random_members",
    "select_by_class",
    "select_by_features",
]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The images that were chosen from a class.

    Attributes
    ----------
    members : ndarray of int64, shape (ipc,)
        Positions among the images of the class, in the order of choice, none of them twice.
    sample_weight : ndarray of float64, shape (ipc,), or None
        None gives every image the weight 1.
    """

    members: NDArray[np.int64]
    sample_weight: NDArray[np.float64] | None = None


def check_class_counts(dataset: ImageDataset, ipc: int) -> None:
    """Raise ValueError unless every class has at least ``ipc`` images."""
    counts = dataset.class_counts
    label = int(np.argmin(counts))
    if counts[label] < ipc:
        raise ValueError(
            f"ipc={ipc}, but class {label} ({dataset.class_names[label]!r}) of {dataset.name!r} "
            f"has {counts[label]} images; ipc must not exceed the images of any class"
        )


def random_members(count: int, ipc: int, random_state: int, label: int) -> NDArray[np.int64]:
    """Positions of ``ipc`` random images among the ``count`` of a class, each at most once.

    The images of a class are put in the order of random numbers, 64 bits each from Philox under
    ``SeedSequence(random_state, spawn_key=(label,))``, and the first ones are taken. numpy keeps
    these streams the same in all of its versions.
    """
    seeds = np.random.SeedSequence(random_state, spawn_key=(label,))
    keys = np.random.Philox(seeds).random_raw(count)
    return np.argsort(keys, kind="stable")[:ipc]


def nearest_to_centroids(
    features: NDArray[np.float32],
    label: int,
    *,
    ipc: int,
    n_init: int,
    max_iter: int,
    random_state: int,
) -> Choice:
    """The rows nearest to the centroids of a class, weighted by the masses of the cells.

    As :class:`ddkern.distill.KMeansNearest` describes it.
    """
    quantized = quantize(
        features,
        ipc,
        groups=np.full(len(features), label),
        n_init=n_init,
        max_iter=max_iter,
        random_state=random_state,
    )
    cells = np.argsort(-quantized.weights, kind="stable")
    return Choice(
        _nearest_distinct(features, quantized.centroids[cells]), quantized.weights[cells] * ipc
    )


def select_by_class(
    dataset: ImageDataset,
    choose: Callable[[int], Choice],
    *,
    normalization: Normalization,
    title: str,
    progress: ProgressArgument,
) -> DistilledSet:
    """The set of the images that ``choose`` names for each class, class after class.

    Parameters
    ----------
    dataset : ImageDataset
    choose : callable
        From a label to a choice among the images of that class.
    normalization : Normalization
    title : str
        What progress is reported under.
    progress : bool or callable or None

    Returns
    -------
    DistilledSet
        With the pixels of the chosen images, hard labels, and in the options of its provenance
        ``rows``: the row of ``dataset`` that each image is.
    """
    rows, weights = [], []
    started = time.perf_counter()
    with report_progress(progress, title, "classes") as record:
        for label in range(dataset.n_classes):
            choice = choose(label)
            rows.append(dataset.rows_of_class(label)[choice.members])
            weight = choice.sample_weight
            weights.append(np.ones(len(rows[-1])) if weight is None else weight)
            if record is not None:
                record(label + 1, dataset.n_classes, time.perf_counter() - started)
    chosen = np.concatenate(rows)
    return DistilledSet(
        dataset.images(chosen),
        dataset.labels[chosen],
        normalization=normalization,
        class_names=dataset.class_names,
        sample_weight=np.concatenate(weights),
        provenance=Provenance(options={"rows": chosen.tolist()}),
    )


def select_by_features(
    dataset: ImageDataset,
    features: FeatureSpace,
    choose: Callable[[NDArray[np.float32], int], Choice],
    *,
    normalization: Normalization,
    title: str,
    progress: ProgressArgument,
) -> DistilledSet:
    """As :func:`select_by_class`, for a choice that depends on the features of a class.

    ``choose`` takes the features, shape (n_rows, n_features), and the label.
    """
    with features.opened(dataset, normalization) as embed:
        return select_by_class(
            dataset,
            lambda label: choose(features_of_class(dataset, normalization, embed, label), label),
            normalization=normalization,
            title=title,
            progress=progress,
        )


def _nearest_distinct(
    features: NDArray[np.float32], centroids: NDArray[np.float32]
) -> NDArray[np.int64]:
    """For each centroid in turn the nearest row that no earlier one has taken."""
    # Of its k nearest rows, the k - 1 centroids before the last one leave at least one.
    k = len(centroids)
    nearest = assign(centroids, features, n_nearest=k).reshape(k, k)
    taken = np.zeros(len(features), bool)
    rows = np.empty(k, np.int64)
    for cell, candidates in enumerate(nearest):
        rows[cell] = candidates[np.argmin(taken[candidates])]
        taken[rows[cell]] = True
    return rows
