# SPDX-License-Identifier: Apache-2.0
"""What DSA does to a batch of images, as functions of parameters that were drawn elsewhere.

Every function takes ``images``, a floating-point tensor of shape (n, channels, height, width), and
parameters with one row for each image or a single row for all of them; it returns a new tensor of
the same shape, dtype and device. All are differentiable any number of times with respect to the
images; parameters are constants.

References
----------
B. Zhao and H. Bilen, "Dataset condensation with differentiable Siamese augmentation", ICML 2021,
section 3.2. S. Zhao et al., "Differentiable augmentation for data-efficient GAN training", NeurIPS
2020, from which the colour operations, crop and cutout come.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ddkern.typing import ArrayLike

__all__ = [
    "check_images",
    "crop",
    "cutout",
    "flip",
    "rotate",
    "scale",
    "scale_contrast",
    "scale_saturation",
    "shift_brightness",
]


def check_images(images: Any) -> None:
    """Raise unless ``images`` is a floating-point tensor of shape (n, channels, height, width).

    Raises
    ------
    TypeError
        If it is no tensor, or not of a floating-point dtype.
    ValueError
        If its shape is another, or has an axis of 0.
    """
    rule = "it must be a floating-point tensor of shape (n, channels, height, width)"
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}; {rule}")
    if not images.is_floating_point():
        raise TypeError(f"images has dtype {images.dtype}; {rule}")
    if images.dim() != 4 or images.numel() == 0:
        raise ValueError(f"images has shape {tuple(images.shape)}; {rule}, without an axis of 0")


def shift_brightness(images: Tensor, shift: ArrayLike) -> Tensor:
    """Add a number to every pixel.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    shift : array of float, shape (n,) or (1,)
    """
    return images + _parameter("shift", shift, images, images.dtype)[:, None, None, None]


def scale_saturation(images: Tensor, factor: ArrayLike) -> Tensor:
    """Scale the differences of the channels from their mean; 0 is grey, 1 changes nothing.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    factor : array of float, shape (n,) or (1,)
    """
    factors = _parameter("factor", factor, images, images.dtype)[:, None, None, None]
    grey = images.mean(dim=1, keepdim=True)
    return (images - grey) * factors + grey


def scale_contrast(images: Tensor, factor: ArrayLike) -> Tensor:
    """Scale the differences of all numbers of an image from their mean; 1 changes nothing.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    factor : array of float, shape (n,) or (1,)
    """
    factors = _parameter("factor", factor, images, images.dtype)[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * factors + mean


def crop(images: Tensor, offset: ArrayLike) -> Tensor:
    """Shift an image; what comes in from beyond its edge is 0.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    offset : array of int, shape (n, 2) or (1, 2)
        Rows and columns: pixel (i, j) of the result is pixel (i + offset[0], j + offset[1]).
    """
    offsets = _parameter("offset", offset, images, torch.int64, columns=2)
    height, width = images.shape[2:]
    # One line of zeros on every side is enough: all that lies beyond the edge is read from it.
    framed = functional.pad(images, (1, 1, 1, 1))
    rows = torch.arange(1, height + 1, device=images.device) + offsets[:, :1]
    columns = torch.arange(1, width + 1, device=images.device) + offsets[:, 1:]
    rows, columns = rows.clamp(0, height + 1), columns.clamp(0, width + 1)
    if len(offsets) == 1:
        return framed.index_select(2, rows[0]).index_select(3, columns[0])
    shifted = torch.take_along_dim(framed, rows[:, None, :, None], dim=2)
    return torch.take_along_dim(shifted, columns[:, None, None, :], dim=3)


def cutout(images: Tensor, box: ArrayLike) -> Tensor:
    """Set a rectangle to 0.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    box : array of int, shape (n, 4) or (1, 4)
        First row, end of rows, first column, end of columns; ends are exclusive.
    """
    boxes = _parameter("box", box, images, torch.int64, columns=4)[:, :, None]
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= boxes[:, 0]) & (rows < boxes[:, 1])
    in_columns = (columns >= boxes[:, 2]) & (columns < boxes[:, 3])
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


def flip(images: Tensor, flipped: ArrayLike) -> Tensor:
    """Mirror left and right.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    flipped : array of bool, shape (n,) or (1,)
        Which images are mirrored.
    """
    chosen = _parameter("flipped", flipped, images, torch.bool)[:, None, None, None]
    return torch.where(chosen, images.flip(3), images)


def scale(images: Tensor, factor: ArrayLike) -> Tensor:
    """Sample an image on a grid stretched about its centre; above 1 the image shrinks.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    factor : array of float, shape (n, 2) or (1, 2)
        Along the width and along the height.

    Notes
    -----
    Bilinear, 0 beyond the edge, coordinates -1 and 1 at the outer edges of the corner pixels: the
    conventions of ``torch.nn.functional.grid_sample`` with ``align_corners=False``.
    """
    work = _sampling_dtype(images)
    factors = _parameter("factor", factor, images, work, columns=2)[:, :, None, None]
    x, y = _coordinates(images, work)
    shape = (len(factors), *images.shape[2:])
    grid = torch.stack([(factors[:, 0] * x).expand(shape), (factors[:, 1] * y).expand(shape)], -1)
    return _sample(images, grid)


def rotate(images: Tensor, angle: ArrayLike) -> Tensor:
    """Turn an image about its centre, anticlockwise as it is displayed for positive angles.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    angle : array of float, shape (n,) or (1,)
        In radians.

    Notes
    -----
    Sampling as in :func:`scale`. The turn happens in coordinates that reach from -1 to 1 along both
    sides, as in the reference implementation of DSA, so an image that is not square is sheared.
    """
    work = _sampling_dtype(images)
    # On the CPU for every device: a sine that differs in its last bit would differ in the image.
    angles = torch.as_tensor(angle, dtype=torch.float64, device="cpu")
    cosine = _parameter("angle", angles.cos(), images, work)[:, None, None]
    sine = _parameter("angle", angles.sin(), images, work)[:, None, None]
    x, y = _coordinates(images, work)
    return _sample(images, torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=-1))


def _parameter(
    name: str, value: ArrayLike, images: Tensor, dtype: torch.dtype, columns: int | None = None
) -> Tensor:
    """``value`` beside the images, with one row for each or for all of them."""
    check_images(images)
    rows = torch.as_tensor(value, dtype=dtype, device=images.device)
    tail = () if columns is None else (columns,)
    if tuple(rows.shape) not in {(len(images), *tail), (1, *tail)}:
        raise ValueError(
            f"{name} has shape {tuple(rows.shape)}; it must be {(len(images), *tail)}, a row for "
            f"each image, or {(1, *tail)}, one for all"
        )
    return rows


def _sampling_dtype(images: Tensor) -> torch.dtype:
    """float64 for float64, float32 for all others: a grid in 16 bits would misplace pixels."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def _coordinates(images: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Centres of the pixels between -1 and 1: x of shape (1, width), y of shape (height, 1)."""
    height, width = images.shape[2:]
    x = torch.arange(1 - width, width, 2, dtype=dtype, device=images.device) / width
    y = torch.arange(1 - height, height, 2, dtype=dtype, device=images.device) / height
    return x[None, :], y[:, None]


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    grid = grid.expand(len(images), *grid.shape[1:])
    sampled: Tensor = _GridSample.apply(images.to(grid.dtype), grid)  # type: ignore[no-untyped-call]
    return sampled.to(images.dtype)


class _GridSample(torch.autograd.Function):
    """Bilinear sampling at a constant grid, which is a linear map of the images.

    torch differentiates its own sampling once; written as a linear map and its adjoint, each the
    derivative of the other, it can be differentiated any number of times.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, grid: Tensor) -> Tensor:
        return functional.grid_sample(
            images, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _GridSampleAdjoint.apply(grads[0], grid), None  # type: ignore[no-untyped-call]


class _GridSampleAdjoint(torch.autograd.Function):
    """The transpose of :class:`_GridSample`, for images of the size of the grid."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, grid: Tensor) -> Tensor:
        # The operation takes the images for their shape alone when only their gradient is wanted.
        images = torch.zeros_like(grad)
        bilinear, zeros_beyond, align_corners = 0, 0, False
        wanted = [True, False]
        adjoint: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            grad, images, grid, bilinear, zeros_beyond, align_corners, wanted
        )[0]
        return adjoint

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(grads[0], grid), None  # type: ignore[no-untyped-call]
