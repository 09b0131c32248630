# SPDX-License-Identifier: Apache-2.0
"""The operations of DSA and their draws in plain loops over float64 numbers, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.canonical import philox

Images = NDArray[np.float64]


def uniform(seed: int, iteration: int, step: int, purpose: int, sample: int) -> list[float]:
    """Return the four numbers in [0, 1) that one counter gives."""
    words = philox((sample, step, iteration, purpose), (seed % (1 << 32), seed >> 32))
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
