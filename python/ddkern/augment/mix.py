# SPDX-License-Identifier: Apache-2.0
"""Cutmix and mixup: every image is mixed with a partner from its batch, and so is its label.

References
----------
H. Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018. S. Yun et al., "CutMix:
Regularization strategy to train strong classifiers with localizable features", ICCV 2019.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddkern.augment.draws import (
    DrawKey,
    Purpose,
    check_key,
    uniform_integers,
)
from ddkern.augment.operations import check_images
from ddkern.checks import as_count, as_fraction, as_image_size, as_number

__all__ = ["CutMix", "MixDraw", "MixUp", "MixedBatch"]

# Where the logarithm of a uniform number is taken, the number is centred in its cell of 2**-32: 0
# has no logarithm.
_HALF_CELL = 2.0**-33


@dataclass(frozen=True, slots=True, eq=False)
class MixedBatch:
    """A mixed batch, ready for a loss with class probabilities as targets.

    Attributes
    ----------
    images : Tensor, shape (n, channels, height, width)
    labels : Tensor, shape (n, n_classes), or None
        None where no labels were given, as when a teacher labels the mixed images.
    weights : Tensor, shape (n,), or None
        None where no weights were given.
    draw : MixDraw
        What was mixed with what.
    """

    images: Tensor
    labels: Tensor | None
    weights: Tensor | None
    draw: MixDraw


@dataclass(frozen=True, slots=True, eq=False)
class MixDraw:
    """Who is mixed with whom, and in which proportion.

    Attributes
    ----------
    partner : ndarray of int64, shape (n,)
        A permutation: image i is mixed with image ``partner[i]``, which may be itself.
    share : float
        Of the image's own label and weight, in [0, 1]; the partner has the rest. 1 where the batch
        is left alone.
    box : (int, int, int, int) or None
        For cutmix, which pixels come from the partner: first row, end of rows, first column, end of
        columns; ends are exclusive. None for mixup, which blends all pixels.
    """

    partner: NDArray[np.int64]
    share: float
    box: tuple[int, int, int, int] | None

    def mix_images(self, images: Tensor) -> Tensor:
        """Mix images of shape (n, channels, height, width), differentiably.

        Raises
        ------
        TypeError, ValueError
            If it is no floating-point tensor of that shape, with n as drawn.
        """
        check_images(images)
        if self.box is None:
            return self._blend("images", images)
        top, bottom, left, right = self.box
        inside = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)
        inside[top:bottom, left:right] = True
        return torch.where(inside, images[self._partner_of("images", images)], images)

    def mix_labels(self, labels: Tensor) -> Tensor:
        """Mix class probabilities of shape (n, n_classes): own share plus the partner's.

        Raises
        ------
        TypeError
            If ``labels`` is not a floating-point tensor: class numbers cannot be mixed.
        ValueError
            If its shape is another.
        """
        rule = "it must hold class probabilities, floating point of shape (n, n_classes)"
        if not isinstance(labels, Tensor):
            raise TypeError(f"labels is a {type(labels).__name__}; {rule}")
        if not labels.is_floating_point():
            raise TypeError(
                f"labels has dtype {labels.dtype}; {rule}: for class numbers pass "
                "torch.nn.functional.one_hot(labels, n_classes).float()"
            )
        if labels.dim() != 2:
            raise ValueError(f"labels has shape {tuple(labels.shape)}; {rule}")
        return self._blend("labels", labels)

    def mix_weights(self, weights: Tensor) -> Tensor:
        """Mix sample weights of shape (n,) as the labels are: own share plus the partner's.

        A sample that is 0.7 of one image and 0.3 of another counts as 0.7 of the one weight and 0.3
        of the other. Over a batch the sum of the weights is kept, since partners are a permutation.

        Raises
        ------
        TypeError
            If ``weights`` is not a floating-point tensor.
        ValueError
            If its shape is another.
        """
        rule = "it must be a floating-point tensor of shape (n,)"
        if not isinstance(weights, Tensor):
            raise TypeError(f"weights is a {type(weights).__name__}; {rule}")
        if not weights.is_floating_point():
            raise TypeError(f"weights has dtype {weights.dtype}; {rule}")
        if weights.dim() != 1:
            raise ValueError(f"weights has shape {tuple(weights.shape)}; {rule}")
        return self._blend("weights", weights)

    def apply(
        self, images: Tensor, labels: Tensor | None = None, weights: Tensor | None = None
    ) -> MixedBatch:
        """Mix images and whatever belongs to them.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
        labels : Tensor, shape (n, n_classes), optional
        weights : Tensor, shape (n,), optional

        Returns
        -------
        MixedBatch

        Raises
        ------
        TypeError, ValueError
            As in :meth:`mix_images`, :meth:`mix_labels` and :meth:`mix_weights`.
        """
        return MixedBatch(
            self.mix_images(images),
            None if labels is None else self.mix_labels(labels),
            None if weights is None else self.mix_weights(weights),
            self,
        )

    def _blend(self, name: str, values: Tensor) -> Tensor:
        partners = values[self._partner_of(name, values)]
        return self.share * values + (1 - self.share) * partners

    def _partner_of(self, name: str, values: Tensor) -> Tensor:
        if len(values) != len(self.partner):
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}; this draw was made for a batch of "
                f"{len(self.partner)}"
            )
        return torch.from_numpy(self.partner).to(values.device)


@dataclass(frozen=True, slots=True)
class CutMix:
    """Replace a rectangle of every image by the same rectangle of its partner.

    One rectangle and one permutation serve the whole batch. The rectangle has the proportions of
    the image, covers 1 - lambda of it with lambda from Beta(alpha, alpha), is centred on any pixel
    and clipped at the edge; labels are mixed by the area that is left of it (S. Yun et al., 2019,
    equations 1 and 2, and Algorithm A1).

    Attributes
    ----------
    alpha : float
        Positive; 1 (lambda uniform) as in the paper.
    probability : float
        Of mixing a batch at all.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or outside its range.
    """

    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_mixing(self)

    def __call__(
        self,
        images: Tensor,
        key: DrawKey,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> MixedBatch:
        """Mix a batch: :meth:`draw` and :meth:`MixDraw.apply` in one call.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
        key : DrawKey
        labels : Tensor, shape (n, n_classes), optional
        weights : Tensor, shape (n,), optional

        Returns
        -------
        MixedBatch

        Raises
        ------
        TypeError, ValueError
            As in :meth:`draw` and :meth:`MixDraw.apply`.
        """
        check_images(images)
        height, width = images.shape[2:]
        return self.draw(key, len(images), (height, width)).apply(images, labels, weights)

    def draw(self, key: DrawKey, n_samples: int, image_size: tuple[int, int]) -> MixDraw:
        """Draw partners and rectangle, without any image.

        Parameters
        ----------
        key : DrawKey
        n_samples : int
            Images in the batch.
        image_size : (int, int)
            Height and width in pixels.

        Returns
        -------
        MixDraw

        Raises
        ------
        TypeError, ValueError
            If an argument is of another type or out of range.
        """
        partner = _draw_partner(key, n_samples)
        height, width = as_image_size(image_size)
        u = key.uniform(Purpose.MIX_BOX, np.zeros(1, np.int64))
        if u[0, 0] >= self.probability:
            return MixDraw(partner, 1.0, (0, 0, 0, 0))
        cut = math.sqrt(1 - _draw_share(key, self.alpha))
        top, bottom = _cut_span(u[1], height, cut)
        left, right = _cut_span(u[2], width, cut)
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return MixDraw(partner, share, (top, bottom, left, right))


@dataclass(frozen=True, slots=True)
class MixUp:
    """Blend every image with its partner, lambda to 1 - lambda, and their labels likewise.

    One lambda from Beta(alpha, alpha) and one permutation serve the whole batch (H. Zhang et al.,
    2018, equation 1 and figure 1a).

    Attributes
    ----------
    alpha : float
        Positive; 1 (lambda uniform) as in the paper's experiments on CIFAR.
    probability : float
        Of mixing a batch at all.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or outside its range.
    """

    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_mixing(self)

    def __call__(
        self,
        images: Tensor,
        key: DrawKey,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> MixedBatch:
        """Mix a batch: :meth:`draw` and :meth:`MixDraw.apply` in one call.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
        key : DrawKey
        labels : Tensor, shape (n, n_classes), optional
        weights : Tensor, shape (n,), optional

        Returns
        -------
        MixedBatch

        Raises
        ------
        TypeError, ValueError
            As in :meth:`draw` and :meth:`MixDraw.apply`.
        """
        check_images(images)
        return self.draw(key, len(images)).apply(images, labels, weights)

    def draw(self, key: DrawKey, n_samples: int) -> MixDraw:
        """Draw partners and lambda, without any image.

        Parameters
        ----------
        key : DrawKey
        n_samples : int
            Images in the batch.

        Returns
        -------
        MixDraw

        Raises
        ------
        TypeError, ValueError
            If an argument is of another type or out of range.
        """
        partner = _draw_partner(key, n_samples)
        u = key.uniform(Purpose.MIX_BOX, np.zeros(1, np.int64))
        share = _draw_share(key, self.alpha) if u[0, 0] < self.probability else 1.0
        return MixDraw(partner, share, None)


def _check_mixing(options: CutMix | MixUp) -> None:
    alpha = as_number("alpha", options.alpha, at_least=0)
    if alpha == 0:
        raise ValueError("alpha=0; it must be positive, as the parameter of a Beta distribution")
    object.__setattr__(options, "alpha", alpha)
    object.__setattr__(options, "probability", as_fraction("probability", options.probability))


def _draw_partner(key: DrawKey, n_samples: int) -> NDArray[np.int64]:
    """A permutation of the batch: the order of one random number for each image."""
    check_key(key)
    samples = np.arange(as_count("n_samples", n_samples), dtype=np.int64)
    words = key.words(Purpose.MIX_PARTNER, samples)
    # 64 bits, so that equal numbers, which would keep their order, do not occur in practice.
    numbers = (words[0].astype(np.uint64) << np.uint64(32)) | words[1]
    return np.argsort(numbers, kind="stable").astype(np.int64, copy=False)


def _draw_share(key: DrawKey, alpha: float) -> float:
    """A number of Beta(alpha, alpha), by rejection from counters of their own.

    For alpha of at most 1 by the method of Jöhnk, in logarithms, since the powers of small alpha
    underflow; above, from the uniform density under its peak at 1/2. Either accepts at least half
    of its trials up to alpha = 1, and about 0.9 / sqrt(alpha) beyond.
    """
    for attempt in itertools.count():
        u, v = key.uniform(Purpose.MIX_SHARE, np.array([attempt]))[:2, 0] + _HALF_CELL
        if alpha <= 1:
            log_x, log_y = math.log(u) / alpha, math.log(v) / alpha
            if np.logaddexp(log_x, log_y) <= 0:
                return float(np.exp(log_x - np.logaddexp(log_x, log_y)))
        elif math.log(v) < (alpha - 1) * math.log(4 * u * (1 - u)):
            return float(u)
    raise AssertionError("unreachable: the counter has no end")


def _cut_span(u: NDArray[np.float64], side: int, cut: float) -> tuple[int, int]:
    """First pixel and end of the rectangle along one side, clipped to the image.

    Half the length, rounded down, lies on either side of the centre (Algorithm A1).
    """
    half = int(side * cut) // 2
    centre = int(uniform_integers(u, side)[0])
    return max(centre - half, 0), min(centre + half, side)
