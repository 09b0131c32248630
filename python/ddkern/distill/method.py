# SPDX-License-Identifier: Apache-2.0
"""What a method of distillation is, and the one function that runs any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from ddkern.checks import as_seed
from ddkern.data import DistilledSet, ImageDataset, Normalization, Provenance
from ddkern.distill.options import Configured
from ddkern.kmeans.options import draw_seed
from ddkern.progress import ProgressArgument

__all__ = ["Method", "distill"]


@runtime_checkable
class Method(Configured, Protocol):
    """A way to make a small set from a large one. Its fields are its options.

    Any object with these members is a method; :mod:`ddkern.distill` brings some along.
    """

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if this data set cannot be distilled so. Reads no images."""

    def distill(
        self,
        dataset: ImageDataset,
        *,
        normalization: Normalization,
        random_state: int,
        progress: ProgressArgument = None,
    ) -> DistilledSet:
        """Make the set.

        What it puts into the options of the set's provenance is recorded along with its own
        options, and so is the fingerprint of the data set where it was needed; :func:`distill` adds
        everything else.
        """


def distill(
    dataset: ImageDataset,
    method: Method,
    *,
    normalization: Normalization | None = None,
    random_state: int | None = None,
    progress: ProgressArgument = None,
) -> DistilledSet:
    """Distill a data set.

    Parameters
    ----------
    dataset : ImageDataset
        Training images, every class with at least one.
    method : Method
        For example what :func:`ddkern.distill.make_method` returns.
    normalization : Normalization, optional
        From pixels to the inputs of networks, for the result as well. Fitted to ``dataset`` by
        default.
    random_state : int, optional
        Seed with ``0 <= random_state < 2**64``. What a method draws for a class depends on it and
        on the label alone. None draws a seed from the operating system and records it.
    progress : bool or callable, optional
        True shows on standard error how much is done, and how much time is left. A callable
        receives a :class:`ddkern.Progress` each time; an exception that it raises ends the call.

    Returns
    -------
    DistilledSet
        Its ``provenance`` holds the method, all of its options, the seed, the fingerprint of
        ``dataset`` (which is read once more for it, unless the method has found it), and versions.
        The options of a coreset also list ``rows``: which row of ``dataset`` each image is.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or the method cannot be applied to the data set. The
        message names argument, value and rule.

    Examples
    --------
    >>> from ddkern.data import open_dataset
    >>> from ddkern.distill import KMeansNearest, distill
    >>> made = distill(open_dataset("digits"), KMeansNearest(ipc=2), random_state=0)
    >>> made
    DistilledSet(images=20 x (1, 8, 8) uint8, classes=10, ipc=2)
    >>> made.provenance.method, made.provenance.options["ipc"]
    ('k-means', 2)
    """
    if not isinstance(dataset, ImageDataset):
        raise TypeError(f"dataset is a {type(dataset).__name__}; it must be an ImageDataset")
    _check_method(method)
    method.check(dataset)
    seed = draw_seed() if random_state is None else as_seed("random_state", random_state)
    if normalization is None:
        normalization = Normalization.fit(dataset)
    elif not isinstance(normalization, Normalization):
        raise TypeError(
            f"normalization is a {type(normalization).__name__}; it must be a Normalization or None"
        )
    normalization.check_shape(dataset.image_shape, "dataset")
    made = method.distill(
        dataset, normalization=normalization, random_state=seed, progress=progress
    )
    provenance = Provenance.record(
        method.name,
        {**method.options(), **made.provenance.options},
        random_state=seed,
        source=dataset,
        source_hash=made.provenance.source_hash,
    )
    return replace(made, provenance=provenance)


def _check_method(method: Any) -> None:
    if isinstance(method, str):
        raise TypeError(
            f"method={method!r} is a name; it must be a method, such as make_method() returns"
        )
    if isinstance(method, type) or not isinstance(method, Method):
        kind = method.__name__ if isinstance(method, type) else f"a {type(method).__name__}"
        raise TypeError(
            f"method is {kind}; it must be an object with name, options, check and distill"
        )
