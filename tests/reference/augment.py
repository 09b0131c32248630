# SPDX-License-Identifier: Apache-2.0
"""The operations on images and their draws in plain loops over float64 numbers, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.canonical import philox

Images = NDArray[np.float64]


def uniform(
    seed: int, iteration: int, step: int, purpose: int, sample: int, block: int = 0
) -> list[float]:
    """Return the four numbers in [0, 1) that one counter gives."""
    words = philox((sample, step, iteration, purpose | block << 16), (seed % (1 << 32), seed >> 32))
    return [word / (1 << 32) for word in words]


def shift_brightness(images: Images, shift: Any) -> Images:
    return np.stack([image + b for image, b in zip(images, shift, strict=True)])


def scale_saturation(images: Images, factor: Any) -> Images:
    out = np.empty_like(images)
    for n, c, i, j in np.ndindex(*images.shape):
        grey = sum(images[n, :, i, j]) / images.shape[1]
        out[n, c, i, j] = grey + factor[n] * (images[n, c, i, j] - grey)
    return out


def scale_contrast(images: Images, factor: Any) -> Images:
    out = np.empty_like(images)
    for n, image in enumerate(images):
        mean = math.fsum(image.ravel()) / image.size
        out[n] = mean + factor[n] * (image - mean)
    return out


def pixel(image: Images, i: int, j: int) -> Any:
    """Return the channels at a pixel; 0 beyond the edge."""
    inside = 0 <= i < image.shape[1] and 0 <= j < image.shape[2]
    return image[:, i, j] if inside else np.zeros(len(image))


def crop(images: Images, offset: Any) -> Images:
    out = np.empty_like(images)
    for n, i, j in np.ndindex(len(images), *images.shape[2:]):
        out[n, :, i, j] = pixel(images[n], i + offset[n][0], j + offset[n][1])
    return out


def cutout(images: Images, box: Any) -> Images:
    out = images.copy()
    for n, (top, bottom, left, right) in enumerate(box):
        out[n, :, top:bottom, left:right] = 0
    return out


def flip(images: Images, flipped: Any) -> Images:
    return np.stack([im[:, :, ::-1] if f else im for im, f in zip(images, flipped, strict=True)])


def bilinear(image: Images, x: float, y: float) -> Any:
    """Return the channels at (x, y), where -1 and 1 are the outer edges of the image."""
    height, width = image.shape[1:]
    column = ((x + 1) * width - 1) / 2
    row = ((y + 1) * height - 1) / 2
    j, i = math.floor(column), math.floor(row)
    right, below = column - j, row - i
    return (1 - below) * (
        (1 - right) * pixel(image, i, j) + right * pixel(image, i, j + 1)
    ) + below * ((1 - right) * pixel(image, i + 1, j) + right * pixel(image, i + 1, j + 1))


def affine(images: Images, matrices: list[list[list[float]]]) -> Images:
    """Return the images sampled at (x, y) -> matrix @ (x, y) of every pixel's centre."""
    height, width = images.shape[2:]
    out = np.empty_like(images)
    for n, i, j in np.ndindex(len(images), height, width):
        x, y = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
        (a, b), (c, d) = matrices[n]
        out[n, :, i, j] = bilinear(images[n], a * x + b * y, c * x + d * y)
    return out


def scale(images: Images, factor: Any) -> Images:
    return affine(images, [[[fx, 0.0], [0.0, fy]] for fx, fy in factor])


def rotate(images: Images, angle: Any) -> Images:
    matrices = [[[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in angle]
    return affine(images, matrices)


def resized_crop(images: Images, box: Any, size: tuple[int, int]) -> Images:
    """Cut out each box and sample it at centres of pixels that divide it evenly."""
    out = np.empty((*images.shape[:2], *size))
    for n, i, j in np.ndindex(len(images), *size):
        top, bottom, left, right = (int(edge) for edge in box[n])
        cut = images[n, :, top:bottom, left:right]
        row = (i + 0.5) * (bottom - top) / size[0] - 0.5
        column = (j + 0.5) * (right - left) / size[1] - 0.5
        total = np.zeros(len(cut))
        for a, b in np.ndindex(2, 2):
            below, beside = math.floor(row) + a, math.floor(column) + b
            share = (1 - abs(row - below)) * (1 - abs(column - beside))
            # Beyond an edge the outermost pixel goes on.
            nearest = min(max(below, 0), bottom - top - 1), min(max(beside, 0), right - left - 1)
            total += share * cut[:, nearest[0], nearest[1]]
        out[n, :, i, j] = total
    return out


def crop_box(
    numbers: list[list[float]],
    image_size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> list[int]:
    """Return the first box that fits, of four numbers for each attempt, or the central one."""
    height, width = image_size
    for share, shape, down, right in numbers:
        area = height * width * (scale[0] * (1 - share) + scale[1] * share)
        aspect = ratio[0] ** (1 - shape) * ratio[1] ** shape
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            top, left = math.floor(down * (height - h + 1)), math.floor(right * (width - w + 1))
            return [top, top + h, left, left + w]
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    if width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    top, left = (height - h) // 2, (width - w) // 2
    return [top, top + h, left, left + w]


def shuffle_patches(images: Images, rows: Any, columns: Any) -> Images:
    """Cut each image into strips twice and put them together in their new order."""
    out = np.empty_like(images)
    for n, image in enumerate(images):
        for axis, order in ((1, rows[n]), (2, columns[n])):
            thickness = image.shape[axis] // len(order)
            strips = np.split(image, [thickness * k for k in range(1, len(order))], axis=axis)
            image = np.concatenate([strips[k] for k in order], axis=axis)  # noqa: PLW2901
        out[n] = image
    return out
