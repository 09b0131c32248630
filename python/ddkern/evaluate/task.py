# SPDX-License-Identifier: Apache-2.0
"""Whether a distilled set and real images are of one task."""

from __future__ import annotations

from ddkern.data import DistilledSet, ImageDataset

__all__ = ["check_same_task"]


def check_same_task(distilled: DistilledSet, real: ImageDataset, name: str) -> None:
    """Raise ValueError unless shapes of images and classes agree.

    Classes whose names are their numbers agree with any others: there is nothing to compare.

    Parameters
    ----------
    distilled : DistilledSet
    real : ImageDataset
    name : str
        What messages call it.
    """
    if distilled.image_shape != real.image_shape:
        raise ValueError(
            f"distilled has images of shape {distilled.image_shape}, but {name} has images of "
            f"shape {real.image_shape}; they must be equal"
        )
    if distilled.n_classes != real.n_classes:
        raise ValueError(
            f"distilled has {distilled.n_classes} classes, but {name} has {real.n_classes}; they "
            "must be the same"
        )
    numbers = tuple(map(str, range(real.n_classes)))
    if numbers in (distilled.class_names, real.class_names):
        return
    for label, (own, other) in enumerate(zip(distilled.class_names, real.class_names, strict=True)):
        if own != other:
            raise ValueError(
                f"class {label} of distilled is {own!r}, but that of {name} is {other!r}; classes "
                "must be the same, in the same order"
            )
