# SPDX-License-Identifier: Apache-2.0
"""Shuffled patches, with which RDED trains on images that are put together from crops.

P. Sun, B. Shi, D. Yu and T. Lin, "On the diversity and realism of distilled dataset: an efficient
dataset distillation paradigm", CVPR 2024, arXiv:2312.03526. The paper calls for shuffled patches;
how they are shuffled is the authors' implementation: strips of columns are put in a random order,
then strips of rows, for each image anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddkern.augment import operations
from ddkern.augment.draws import DrawKey, Purpose, check_key, sample_ids
from ddkern.checks import as_count, as_image_size
from ddkern.typing import ArrayLike

__all__ = ["PatchDraw", "ShufflePatches"]


@dataclass(frozen=True, slots=True, eq=False)
class PatchDraw:
    """What one call of :class:`ShufflePatches` does to its batch.

    Attributes
    ----------
    image_size : (int, int)
        Height and width of the images it was drawn for.
    rows : ndarray of int64, shape (m, factor)
        Strip k of rows of the result is strip ``rows[i, k]`` of image i. One row for each image,
        or a single row that holds for all of them.
    columns : ndarray of int64, shape (m, factor)
        Likewise for strips of columns.
    """

    image_size: tuple[int, int]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def apply(self, images: Tensor) -> Tensor:
        """Shuffle the patches of a batch.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
            Floating point, on any device.

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
        return operations.shuffle_patches(images, self.rows, self.columns)


@dataclass(frozen=True, slots=True)
class ShufflePatches:
    """The factor by factor patches of each image in another order.

    Rows of patches and columns of patches are permuted, each order equally likely: patches that
    were in one row stay in one row. With a factor of 2 that is 4 of the 24 orders of four patches.

    Call it on a batch with a :class:`DrawKey`; the same key repeats the call exactly.

    Attributes
    ----------
    factor : int
        Patches along each side, at least 1, which changes nothing. Where it does not divide a
        side, the last patch is larger.

    Raises
    ------
    TypeError, ValueError
        If ``factor`` is not an integer of at least 1.

    Examples
    --------
    >>> import torch
    >>> from ddkern.augment import DrawKey, ShufflePatches
    >>> image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    >>> ShufflePatches(2)(image, DrawKey(seed=0, step=2))[0, 0].tolist()
    [[4.0, 3.0], [2.0, 1.0]]
    """

    factor: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", as_count("factor", self.factor))

    def __call__(
        self,
        images: Tensor,
        key: DrawKey,
        *,
        siamese: bool = False,
        samples: ArrayLike | None = None,
    ) -> Tensor:
        """Augment a batch: :meth:`draw` and :meth:`PatchDraw.apply` in one call.

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
            As in :meth:`draw` and :meth:`PatchDraw.apply`.
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
    ) -> PatchDraw:
        """Draw the orders, without any image.

        Parameters
        ----------
        key : DrawKey
        n_samples : int
            Images in the batch.
        image_size : (int, int)
            Height and width in pixels, each at least ``factor``.
        siamese : bool
            One order for the whole batch, whatever its size. Otherwise every image has its own, as
            in RDED.
        samples : array of int, shape (n_samples,), optional
            What the order of each image hangs on, in [0, 2**32); by default its place in the batch.

        Returns
        -------
        PatchDraw

        Raises
        ------
        TypeError, ValueError
            If an argument is of another type or out of range, or ``samples`` is combined with
            ``siamese``.
        """
        check_key(key)
        shape = as_image_size(image_size)
        if min(shape) < self.factor:
            raise ValueError(
                f"image_size={shape}; neither side may be less than the {self.factor} patches"
            )
        ids = sample_ids(n_samples, siamese, samples)
        rows, columns = (
            _orders(key, purpose, ids, self.factor)
            for purpose in (Purpose.PATCH_ROWS, Purpose.PATCH_COLUMNS)
        )
        return PatchDraw(shape, rows, columns)


def _orders(
    key: DrawKey, purpose: Purpose, ids: NDArray[np.int64], factor: int
) -> NDArray[np.int64]:
    """A permutation for each id, shape (n, factor): the order of one random word for each strip."""
    blocks = [key.words(purpose, ids, block) for block in range(-(-factor // 4))]
    words = np.concatenate(blocks)[:factor].T
    # Two words are equal once in 2**32; then the strips keep their order.
    return np.argsort(words, axis=1, kind="stable").astype(np.int64, copy=False)
