# SPDX-License-Identifier: Apache-2.0
"""Differentiable Siamese augmentation.

B. Zhao and H. Bilen, "Dataset condensation with differentiable Siamese augmentation", ICML 2021.
The ranges of the parameters, the order of the colour operations and the choice of one operation for
a whole batch are those of the authors' implementation; the paper's section 4.1 names the six.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddkern.augment import operations
from ddkern.augment.draws import (
    DrawKey,
    Purpose,
    check_key,
    sample_ids,
    uniform_integers,
)
from ddkern.checks import as_fraction, as_image_size, as_number, check_choice
from ddkern.typing import ArrayLike

__all__ = ["DSA", "DSADraw"]

# What each name of a strategy stands for, in the order of application, and the draw it takes its
# parameters from. Colour is three operations in a row.
_PARTS: dict[str, tuple[Purpose, tuple[str, ...]]] = {
    "color": (Purpose.COLOR, ("brightness", "saturation", "contrast")),
    "crop": (Purpose.CROP, ("crop",)),
    "cutout": (Purpose.CUTOUT, ("cutout",)),
    "flip": (Purpose.FLIP, ("flip",)),
    "scale": (Purpose.SCALE, ("scale",)),
    "rotate": (Purpose.ROTATE, ("rotate",)),
}

_APPLY: dict[str, Callable[[Tensor, NDArray[Any]], Tensor]] = {
    "brightness": operations.shift_brightness,
    "saturation": operations.scale_saturation,
    "contrast": operations.scale_contrast,
    "crop": operations.crop,
    "cutout": operations.cutout,
    "flip": operations.flip,
    "scale": operations.scale,
    "rotate": operations.rotate,
}


@dataclass(frozen=True, slots=True, eq=False)
class DSADraw:
    """What one call of :class:`DSA` does to its batch.

    Attributes
    ----------
    image_size : (int, int)
        Height and width of the images it was drawn for.
    operations : tuple of str
        Names of the strategy, in the order of application.
    parameters : dict from str to ndarray
        One row for each image, or a single row that holds for all of them. ``brightness``: what is
        added, (m,); ``saturation``, ``contrast``: factors, (m,); ``crop``: rows and columns of the
        shift, (m, 2); ``cutout``: first row, end of rows, first column, end of columns, (m, 4);
        ``flip``: whether, (m,); ``scale``: factors of the grid along width and height, (m, 2);
        ``rotate``: radians, (m,). It holds those of ``operations`` alone.
    """

    image_size: tuple[int, int]
    operations: tuple[str, ...]
    parameters: dict[str, NDArray[Any]]

    def apply(self, images: Tensor) -> Tensor:
        """Augment a batch.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
            Floating point, on any device. Values are as the network takes them, that is
            normalised: brightness, crop and cutout count in these units, with 0 as their black.

        Returns
        -------
        Tensor
            Of the shape, dtype and device of ``images``; differentiable with respect to them any
            number of times.

        Raises
        ------
        TypeError
            If ``images`` is not a floating-point tensor.
        ValueError
            If it has another shape than the draw was made for.
        """
        operations.check_images(images)
        if tuple(images.shape[2:]) != self.image_size:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; this draw was made for images of height "
                f"and width {self.image_size}"
            )
        for name in self.operations:
            for part in _PARTS[name][1]:
                images = _APPLY[part](images, self.parameters[part])
        return images


@dataclass(frozen=True, slots=True)
class DSA:
    """Differentiable Siamese augmentation: a random operation on each batch.

    Call it on a batch with a :class:`DrawKey`; the same key repeats the call exactly.

    Attributes
    ----------
    strategy : str
        The operations to choose from, joined by underscores: of ``color``, ``crop``, ``cutout``,
        ``flip``, ``scale`` and ``rotate``, each at most once.
    mode : {"one", "all"}
        ``"one"`` of the operations, each equally likely, for the whole batch, as all published
        results use it; or ``"all"`` of them, in the order of ``strategy``, so that ``crop_flip`` is
        the common augmentation of CIFAR.
    brightness : float
        What is added is uniform in [-brightness / 2, brightness / 2).
    saturation : float
        The factor is uniform in [0, saturation).
    contrast : float
        The factor is uniform in [contrast, contrast + 1).
    crop : float
        Shifts reach this share of each side, rounded half up to whole pixels.
    cutout : float
        Share of each side that the cut square covers where it lies inside, rounded likewise. Its
        centre lies anywhere in the image, so part of it may lie beyond the edge.
    flip : float
        Probability of mirroring.
    scale : float
        Factors along width and height are independent and uniform in [1 / scale, scale).
    rotate : float
        Angles are uniform in [-rotate, rotate) degrees.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or outside its range.

    Notes
    -----
    For 256 images of 3 by 32 by 32 on two threads, a draw takes 0.3 ms, the operation and its
    derivative 1 ms (cutout, flip) to 5 ms (rotate). A draw is 16 bytes of random numbers an image
    and operation; nothing is kept.

    Examples
    --------
    >>> import torch
    >>> from ddkern.augment import DSA, DrawKey
    >>> dsa, key = DSA(), DrawKey(seed=0, iteration=7, step=2)
    >>> real, synthetic = torch.rand(64, 3, 32, 32), torch.rand(10, 3, 32, 32, requires_grad=True)
    >>> pair = dsa(real, key, siamese=True), dsa(synthetic, key, siamese=True)
    >>> dsa.draw(key, 64, (32, 32)).operations
    ('flip',)
    """

    strategy: str = "color_crop_cutout_flip_scale_rotate"
    mode: Literal["one", "all"] = "one"
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    cutout: float = 0.5
    flip: float = 0.5
    scale: float = 1.2
    rotate: float = 15.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("one", "all"))
        if not isinstance(self.strategy, str):
            raise TypeError(f"strategy is a {type(self.strategy).__name__}; {_strategy_rule()}")
        names = self.strategy.split("_")
        if not set(names) <= set(_PARTS) or len(set(names)) < len(names):
            raise ValueError(f"strategy={self.strategy!r}; {_strategy_rule()}")
        for name in ("brightness", "saturation", "contrast"):
            object.__setattr__(self, name, as_number(name, getattr(self, name), at_least=0))
        for name in ("crop", "cutout", "flip"):
            object.__setattr__(self, name, as_fraction(name, getattr(self, name)))
        object.__setattr__(self, "scale", as_number("scale", self.scale, at_least=1))
        object.__setattr__(
            self, "rotate", as_number("rotate", self.rotate, at_least=0, at_most=180)
        )

    def __call__(
        self,
        images: Tensor,
        key: DrawKey,
        *,
        siamese: bool = False,
        samples: ArrayLike | None = None,
    ) -> Tensor:
        """Augment a batch: :meth:`draw` and :meth:`DSADraw.apply` in one call.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
            Floating point, on any device.
        key : DrawKey
        siamese, samples
            As in :meth:`draw`.

        Returns
        -------
        Tensor
            Of the shape, dtype and device of ``images``.

        Raises
        ------
        TypeError, ValueError
            As in :meth:`draw` and :meth:`DSADraw.apply`.
        """
        operations.check_images(images)
        height, width = images.shape[2:]
        draw = self.draw(key, len(images), (height, width), siamese=siamese, samples=samples)
        return draw.apply(images)

    def draw(
        self,
        key: DrawKey,
        n_samples: int,
        image_size: tuple[int, int],
        *,
        siamese: bool = False,
        samples: ArrayLike | None = None,
    ) -> DSADraw:
        """Draw the operation and its parameters, without any image.

        Parameters
        ----------
        key : DrawKey
        n_samples : int
            Images in the batch.
        image_size : (int, int)
            Height and width in pixels.
        siamese : bool
            One set of parameters for the whole batch, whatever its size: two batches with the same
            key get the same operation with the same parameters. Otherwise every image has its own.
        samples : array of int, shape (n_samples,), optional
            What the parameters of each image hang on, in [0, 2**32); by default its place in the
            batch. With ids of your own, an image is treated alike in whichever part of a batch, or
            on whichever process, it is worked on.

        Returns
        -------
        DSADraw

        Raises
        ------
        TypeError, ValueError
            If an argument is of another type or out of range, or ``samples`` is combined with
            ``siamese``.
        """
        check_key(key)
        size = as_image_size(image_size)
        ids = sample_ids(n_samples, siamese, samples)
        chosen = tuple(self.strategy.split("_"))
        if self.mode == "one":
            u = key.uniform(Purpose.OPERATION, np.zeros(1, np.int64))[0]
            chosen = (chosen[int(uniform_integers(u, len(chosen))[0])],)
        parameters: dict[str, NDArray[Any]] = {}
        for name in chosen:
            parameters |= self._parameters(name, key.uniform(_PARTS[name][0], ids), size)
        return DSADraw(size, chosen, parameters)

    def _parameters(
        self, name: str, u: NDArray[np.float64], image_size: tuple[int, int]
    ) -> dict[str, NDArray[Any]]:
        """From four uniform numbers for each sample to the parameters of one operation."""
        if name == "color":
            return {
                "brightness": (u[0] - 0.5) * self.brightness,
                "saturation": u[1] * self.saturation,
                "contrast": u[2] + self.contrast,
            }
        if name == "crop":
            offsets = [_crop_offset(u[a], image_size[a], self.crop) for a in (0, 1)]
            return {"crop": np.stack(offsets, axis=1)}
        if name == "cutout":
            spans = [_cutout_span(u[a], image_size[a], self.cutout) for a in (0, 1)]
            return {"cutout": np.stack([*spans[0], *spans[1]], axis=1)}
        if name == "flip":
            return {"flip": u[0] < self.flip}
        if name == "scale":
            return {"scale": (u[:2] * (self.scale - 1 / self.scale) + 1 / self.scale).T}
        return {"rotate": (u[0] - 0.5) * (2 * math.radians(self.rotate))}


def _strategy_rule() -> str:
    return f"it must join some of {', '.join(_PARTS)} by underscores, each at most once"


def _whole_pixels(side: int, share: float) -> int:
    return int(side * share + 0.5)


def _crop_offset(u: NDArray[np.float64], side: int, share: float) -> NDArray[np.int64]:
    reach = _whole_pixels(side, share)
    return uniform_integers(u, 2 * reach + 1) - reach


def _cutout_span(
    u: NDArray[np.float64], side: int, share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel and end of the cut along one side, clipped to the image."""
    length = _whole_pixels(side, share)
    # A cut of even length is centred between pixels, and there is one more such place than pixels.
    centre = uniform_integers(u, side + 1 - length % 2)
    first = centre - length // 2
    return np.clip(first, 0, side), np.clip(first + length, 0, side)
