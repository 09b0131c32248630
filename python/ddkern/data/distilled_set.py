# SPDX-License-Identifier: Apache-2.0
"""The result of a distillation: a few images, their labels and their weights."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddkern.arrays import to_host
from ddkern.checks import check_choice
from ddkern.data.dataset import check_labels
from ddkern.data.encoding import Encoding
from ddkern.data.normalization import Normalization
from ddkern.data.provenance import Provenance

if TYPE_CHECKING:
    from ddkern.data.torch_dataset import WeightedImages

__all__ = ["SOFT_LABEL_KINDS", "DistilledSet", "SoftLabelKind"]

SoftLabelKind = Literal["probabilities", "logits", "targets"]
SOFT_LABEL_KINDS = ("probabilities", "logits", "targets")

# How far rows of probabilities may be from a sum of 1: float16 keeps three digits of each entry.
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True, eq=False)
class DistilledSet:
    """A synthetic data set: images, hard labels, weights, and all that using them needs.

    Arrays may be given as numpy arrays or torch tensors (CPU); they are kept as numpy arrays.
    Every argument is checked.

    Attributes
    ----------
    images : ndarray, shape (n, channels, height, width), or Encoding
        uint8: pixels, which ``normalization`` turns into the input of a network. float16 or
        float32: that input itself, normalised already (float64 is rounded to float32). An
        Encoding decodes to the latter.
    labels : ndarray of int64, shape (n,)
        Hard labels, in ``[0, n_classes)``; no class is empty. Any order.
    normalization : Normalization
    class_names : tuple of n_classes str
        By default the numbers of the classes, up to the largest label.
    sample_weight : ndarray of float64, shape (n,)
        Finite, at least 0, and above 0 somewhere in every class. A weight of 2 means the image
        counts like two. All 1 by default.
    soft_labels : ndarray of float32 or float16, shape (n, n_classes), or None
    soft_label_kind : {"probabilities", "logits", "targets"}
        What ``soft_labels`` holds: rows that sum to 1; what softmax turns into such; or any
        numbers to regress on.
    student_lr : float or None
        The learning rate that was learned together with the images, above 0.
    provenance : Provenance

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule.
    """

    images: NDArray[Any] | Encoding
    labels: NDArray[np.int64]
    _: KW_ONLY
    normalization: Normalization
    class_names: tuple[str, ...] = ()
    sample_weight: NDArray[np.float64] = None  # type: ignore[assignment]  # filled in below
    soft_labels: NDArray[Any] | None = None
    soft_label_kind: SoftLabelKind = "probabilities"
    student_lr: float | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        images = self.images if isinstance(self.images, Encoding) else parse_images(self.images)
        n, *image_shape = images.shape
        self.normalization.check_shape(tuple(image_shape), "images")
        labels, names = _parse_labels(self.labels, n, self.class_names)
        values = {
            "images": images,
            "labels": labels,
            "class_names": names,
            "sample_weight": _parse_weight(self.sample_weight, labels, names),
            "soft_labels": _parse_soft_labels(
                self.soft_labels, self.soft_label_kind, n, len(names)
            ),
            "student_lr": _parse_student_lr(self.student_lr),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        stored = self.images.decoder if isinstance(self.images, Encoding) else self.images.dtype
        counts = self.class_counts
        ipc = str(counts[0]) if (counts == counts[0]).all() else f"{counts.min()} to {counts.max()}"
        soft = "" if self.soft_labels is None else f", soft_labels={self.soft_label_kind}"
        lr = "" if self.student_lr is None else f", student_lr={self.student_lr:.6g}"
        return (
            f"DistilledSet(images={len(self)} x {self.image_shape} {stored}, "
            f"classes={self.n_classes}, ipc={ipc}{soft}{lr})"
        )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Images of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes).astype(np.int64)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def inputs(self, rows: Any = None) -> NDArray[np.float32]:
        """Images as networks take them: decoded and normalised.

        Parameters
        ----------
        rows : array of int, optional
            All by default.

        Returns
        -------
        ndarray of float32, shape (len(rows), channels, height, width)
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        if isinstance(self.images, Encoding):
            return self.images.decode(chosen)
        part = self.images[chosen]
        if part.dtype == np.uint8:
            return self.normalization.apply(part)
        return part.astype(np.float32, copy=False)

    def pixels(self, rows: Any = None) -> NDArray[np.uint8]:
        """Images to look at: normalization undone, rounded to 8 bits, cut off at 0 and 255.

        Parameters
        ----------
        rows : array of int, optional
            All by default.

        Returns
        -------
        ndarray of uint8, shape (len(rows), channels, height, width)
        """
        if not isinstance(self.images, Encoding) and self.images.dtype == np.uint8:
            return self.images.copy() if rows is None else self.images[np.asarray(rows, np.int64)]
        return self.normalization.to_pixels(self.inputs(rows))

    def class_major(self) -> DistilledSet:
        """The same set with all images of class 0 first, then those of class 1, and so on.

        Within a class the order stays. An Encoding becomes the images that it decodes to.
        """
        order = np.argsort(self.labels, kind="stable")
        images = self.images
        return replace(
            self,
            images=images.decode(order) if isinstance(images, Encoding) else images[order],
            labels=self.labels[order],
            sample_weight=self.sample_weight[order],
            soft_labels=None if self.soft_labels is None else self.soft_labels[order],
        )

    def as_torch_dataset(self, *, soft: bool | None = None) -> WeightedImages:
        """A torch ``Dataset`` of (input, label, weight).

        Parameters
        ----------
        soft : bool, optional
            Whether labels are the soft ones. By default they are where there are any.

        Raises
        ------
        ValueError
            If ``soft`` and there are no soft labels.
        UnsupportedError
            If torch is not installed.
        """
        from ddkern.optional import import_optional

        import_optional("torch", "a torch Dataset", "torch")
        from ddkern.data.torch_dataset import WeightedImages

        return WeightedImages(self, soft=self.soft_labels is not None if soft is None else soft)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one ``.safetensors`` file, which appears complete or not at all.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            If the suffix is another one.
        UnsupportedError
            If the package safetensors is not installed.
        """
        from ddkern.data.native import write_native

        write_native(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DistilledSet:
        """Read a file that :meth:`save` wrote. Nothing in it is executed.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            If the file holds something else.
        UnsupportedError
            If the package safetensors is not installed.
        """
        from ddkern.data.native import read_native

        return read_native(Path(path))


def parse_images(images: Any) -> NDArray[Any]:
    """Images as uint8, float16 or float32 of shape (n, c, h, w), finite."""
    host = to_host(images, "images")
    rule = "it must be (n, channels, height, width) with 1 or 3 channels"
    shape = host.values.shape
    if len(shape) != 4 or 0 in shape or shape[1] not in (1, 3):
        raise ValueError(f"images has shape {shape}; {rule}")
    if host.values.dtype == np.uint8:
        return np.ascontiguousarray(host.values)
    if not host.bfloat16 and host.values.dtype.kind != "f":
        raise TypeError(
            f"images has dtype {host.dtype_name}; pixels must be uint8, normalised images floats"
        )
    half = not host.bfloat16 and host.values.dtype == np.float16
    values = host.as_dtype(np.float16 if half else np.float32)
    for row, image in enumerate(values):
        if not np.isfinite(image).all():
            raise ValueError(f"images[{row}] holds NaN or infinity")
    return values


def _parse_labels(
    labels: Any, n: int, class_names: Any
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    host = to_host(labels, "labels")
    if not host.is_integer:
        raise TypeError(f"labels has dtype {host.dtype_name}; it must hold one integer an image")
    if host.values.shape != (n,):
        raise ValueError(
            f"labels has shape {host.values.shape}; it must hold one label for each of the {n} "
            "images"
        )
    if isinstance(class_names, str):
        raise TypeError(f"class_names={class_names!r} is a str; it must be a sequence of them")
    names = tuple(class_names) or None
    return check_labels(host.values, names, "labels", lambda row: f"labels[{row}]")


def _parse_weight(
    weight: Any, labels: NDArray[np.int64], names: tuple[str, ...]
) -> NDArray[np.float64]:
    if weight is None:
        return np.ones(len(labels))
    host = to_host(weight, "sample_weight")
    if host.values.shape != labels.shape:
        raise ValueError(
            f"sample_weight has shape {host.values.shape}; it must hold one number for each of the "
            f"{len(labels)} images"
        )
    values = host.as_dtype(np.float64)
    # One comparison finds negative numbers, NaN and infinity alike.
    valid = (values >= 0) & (values < np.inf)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"sample_weight[{row}] is {values[row]}; weights must be finite and at least 0"
        )
    mass = np.bincount(labels, weights=values, minlength=len(names))
    if not mass.all():
        label = int(np.argmin(mass))
        raise ValueError(
            f"sample_weight is 0 for every image of class {label} ({names[label]!r}); every class "
            "needs an image of positive weight"
        )
    return values


def _parse_soft_labels(soft: Any, kind: Any, n: int, n_classes: int) -> NDArray[Any] | None:
    check_choice("soft_label_kind", kind, SOFT_LABEL_KINDS)
    if soft is None:
        return None
    host = to_host(soft, "soft_labels")
    if host.values.shape != (n, n_classes):
        raise ValueError(
            f"soft_labels has shape {host.values.shape}; it must hold {n_classes} numbers for each "
            f"of the {n} images"
        )
    half = not host.bfloat16 and host.values.dtype == np.float16
    values = host.as_dtype(np.float16 if half else np.float32)
    valid = np.isfinite(values).all(axis=1)
    rule = "soft labels must be finite"
    if kind == "probabilities":
        total = values.sum(axis=1, dtype=np.float64)
        valid &= (values >= 0).all(axis=1) & (np.abs(total - 1) <= _SUM_TOLERANCE)
        rule = "probabilities must be at least 0 and sum to 1 (soft_label_kind says what they are)"
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(f"soft_labels[{row}] is {values[row].tolist()}; {rule}")
    return values


def _parse_student_lr(value: Any) -> float | None:
    if value is None:
        return None
    rate = float(value)
    if not 0.0 < rate < np.inf:
        raise ValueError(f"student_lr={rate}; a learning rate must be finite and above 0")
    return rate
