# SPDX-License-Identifier: Apache-2.0
"""What is done to a batch of images, as functions of parameters that were drawn elsewhere.

Every function takes ``images``, a floating-point tensor of shape (n, channels, height, width), and
parameters with one row for each image or a single row for all of them; it returns a new tensor of
the same dtype and device, and of the same shape unless it resizes. All are differentiable any
number of times with respect to the images; parameters are constants.

References
----------
B. Zhao and H. Bilen, "Dataset condensation with differentiable Siamese augmentation", ICML 2021,
section 3.2. S. Zhao et al., "Differentiable augmentation for data-efficient GAN training", NeurIPS
2020, from which the colour operations, crop and cutout come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ddkern.typing import ArrayLike

__all__ = [
    "check_images",
    "crop",
    "cutout",
    "flip",
    "resized_crop",
    "rotate",
    "scale",
    "scale_contrast",
    "scale_saturation",
    "shift_brightness",
    "shuffle_patches",
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
    return _pick(framed, rows.clamp(0, height + 1), columns.clamp(0, width + 1))


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


def resized_crop(images: Tensor, box: ArrayLike, size: tuple[int, int]) -> Tensor:
    """Cut a rectangle out of each image and resize it.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    box : array of int, shape (n, 4) or (1, 4)
        First row, end of rows, first column, end of columns; ends are exclusive. Not empty, and
        inside the image.
    size : (int, int)
        Height and width of the result.

    Notes
    -----
    Bilinear, and at the edge of the box its outermost pixels go on, so that nothing from beyond it
    takes part: what ``torch.nn.functional.interpolate`` with ``align_corners=False`` makes of each
    box alone, up to the rounding of positions. There is no antialiasing.
    """
    # On the CPU for every device, where nobody waits for an answer and all divide alike.
    boxes = _parameter("box", box, images, torch.int64, columns=4, device="cpu")
    height, width = images.shape[2:]
    fits = (boxes[:, ::2] >= 0) & (boxes[:, ::2] < boxes[:, 1::2])
    fits &= boxes[:, 1::2] <= torch.tensor([height, width])
    if not fits.all():
        wrong = boxes[~fits.all(dim=1)][0].tolist()
        raise ValueError(
            f"box holds {wrong}; it must be first row, end of rows, first column and end of "
            f"columns of a rectangle inside images of height and width {(height, width)}"
        )
    work = _sampling_dtype(images)
    y = _crop_coordinates(boxes[:, :2], size[0], height).to(images.device, work)
    x = _crop_coordinates(boxes[:, 2:], size[1], width).to(images.device, work)
    shape = (len(boxes), *size)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    return _sample(images, grid)


def shuffle_patches(images: Tensor, rows: ArrayLike, columns: ArrayLike) -> Tensor:
    """Put the strips of rows of an image, and its strips of columns, in another order.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    rows : array of int, shape (n, factor) or (1, factor)
        Permutations of range(factor): strip k of the result is strip ``rows[i, k]`` of image i.
        Strips have ``height // factor`` rows; the last has what remains as well.
    columns : array of int, shape (n, factor) or (1, factor)
        Likewise along the width.
    """
    check_images(images)
    orders = (
        _parameter(name, order, images, torch.int64, columns=np.shape(order)[-1])
        for name, order in (("rows", rows), ("columns", columns))
    )
    pixels = (_pixels_of_strips(o, s) for o, s in zip(orders, images.shape[2:], strict=True))
    return _pick(images, *pixels)


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
    name: str,
    value: ArrayLike,
    images: Tensor,
    dtype: torch.dtype,
    columns: int | None = None,
    device: str | None = None,
) -> Tensor:
    """``value`` beside the images, or on ``device``, with one row for each or for all of them."""
    check_images(images)
    rows = torch.as_tensor(value, dtype=dtype, device=device or images.device)
    tail = () if columns is None else (columns,)
    if tuple(rows.shape) not in {(len(images), *tail), (1, *tail)}:
        raise ValueError(
            f"{name} has shape {tuple(rows.shape)}; it must be {(len(images), *tail)}, a row for "
            f"each image, or {(1, *tail)}, one for all"
        )
    return rows


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels (rows[i, k], columns[i, l]) of image i; a single row of either serves all images."""
    if len(rows) == len(columns) == 1:
        return images.index_select(2, rows[0]).index_select(3, columns[0])
    picked = torch.take_along_dim(images, rows[:, None, :, None], dim=2)
    return torch.take_along_dim(picked, columns[:, None, None, :], dim=3)


def _pixels_of_strips(order: Tensor, side: int) -> Tensor:
    """Which pixel stands where along a side once its strips are in ``order``."""
    factor = order.shape[1]
    strip = (torch.arange(side, device=order.device) // (side // factor)).clamp(max=factor - 1)
    # The inverse of a permutation is what sorts it: where each strip, and so its pixels, goes.
    place = order.argsort(dim=1)[:, strip]
    return place.argsort(dim=1, stable=True)


def _sampling_dtype(images: Tensor) -> torch.dtype:
    """float64 for float64, float32 for all others: a grid in 16 bits would misplace pixels."""
    return torch.float64 if images.dtype == torch.float64 else torch.float32


def _coordinates(images: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Centres of the pixels between -1 and 1: x of shape (1, width), y of shape (height, 1)."""
    height, width = images.shape[2:]
    x = torch.arange(1 - width, width, 2, dtype=dtype, device=images.device) / width
    y = torch.arange(1 - height, height, 2, dtype=dtype, device=images.device) / height
    return x[None, :], y[:, None]


def _crop_coordinates(span: Tensor, n_positions: int, side: int) -> Tensor:
    """Positions between -1 and 1 on a side of the image that resize spans to a number of pixels.

    float64 of shape (m, n_positions) for ``span`` of shape (m, 2), first pixels and ends.
    """
    first, length = span[:, :1].double(), (span[:, 1:] - span[:, :1]).double()
    centres = torch.arange(n_positions, dtype=torch.float64) + 0.5
    inside = (centres * (length / n_positions) - 0.5).clamp(min=0).minimum(length - 1)
    return (2 * (first + inside) + 1) / side - 1


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
        ctx.image_size = tuple(inputs[0].shape[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        adjoint = _GridSampleAdjoint.apply(grads[0], grid, ctx.image_size)  # type: ignore[no-untyped-call]
        return adjoint, None


class _GridSampleAdjoint(torch.autograd.Function):
    """The transpose of :class:`_GridSample`, for images of a given height and width."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, grid: Tensor, image_size: tuple[int, int]) -> Tensor:
        # The operation takes the images for their shape alone when only their gradient is wanted.
        images = grad.new_zeros((*grad.shape[:2], *image_size))
        bilinear, zeros_beyond, align_corners = 0, 0, False
        wanted = [True, False]
        adjoint: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            grad, images, grid, bilinear, zeros_beyond, align_corners, wanted
        )[0]
        return adjoint

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Any], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(grads[0], grid), None, None  # type: ignore[no-untyped-call]
