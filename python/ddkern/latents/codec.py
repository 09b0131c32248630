# SPDX-License-Identifier: Apache-2.0
"""What a codec is: images to latents, and latents to images."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Codec", "check_codec"]


@runtime_checkable
class Codec(Protocol):
    """Maps images to latents, in which means make sense, and back to images.

    A codec is made for images of one shape. Both of its directions are functions: the same
    arguments give the same result, and what is random about an image is drawn from ``seed`` and the
    image's id alone, so that it depends neither on the other images of a call nor on their order.
    Results agree to 1e-5 however images are divided into calls, and bit for bit for the same
    division on the same machine with the same number of threads.

    Attributes
    ----------
    name : str
        The same for all objects of a class.
    image_shape : (int, int, int)
        Channels, height, width of the images on both sides.
    latent_shape : tuple of int
        Of one latent.
    batch_size : int
        How many images fit through it at once; callers divide their images so.
    """

    name: ClassVar[str]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the images on both sides."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent."""

    @property
    def batch_size(self) -> int:
        """How many images fit through it at once."""

    def describe(self) -> dict[str, Any]:
        """All that its results depend on as plain values (JSON): digests of weights, options."""

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Raise ValueError if it cannot decode images of these classes."""

    def encode(
        self, images: NDArray[np.uint8], *, ids: NDArray[np.int64] | None = None, seed: int = 0
    ) -> NDArray[np.float32]:
        """Latents of images.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, channels, height, width)
        ids : ndarray of int64, shape (n,), optional
            What tells the images apart, for codecs that draw; ``arange(n)`` by default.
        seed : int
            Of what is drawn.

        Returns
        -------
        ndarray of float32, shape (n, *latent_shape)
        """

    def decode(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        ids: NDArray[np.int64] | None = None,
        seed: int = 0,
    ) -> NDArray[np.uint8]:
        """Images of latents.

        Parameters
        ----------
        latents : ndarray of float32, shape (n, *latent_shape)
        labels : ndarray of int64, shape (n,)
            The class of each.
        strength : float, optional
            How far a latent is diffused before it is denoised, in [0, 1]: 0 decodes the latent as
            it is, 1 forgets it. None is the codec's own value, here and below; a codec without a
            diffusion model takes nothing else.
        steps : int, optional
            Steps of the sampler from pure noise to an image; the share ``strength`` is run.
        guidance : float, optional
            Weight of classifier-free guidance, at least 1, which is without.
        ids : ndarray of int64, shape (n,), optional
            What tells the latents apart for the noise; ``arange(n)`` by default.
        seed : int
            Of the noise.

        Returns
        -------
        ndarray of uint8, shape (n, channels, height, width)
        """

    def decoding(
        self,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> dict[str, Any]:
        """What :meth:`decode` makes of these arguments: the values it runs with, checked.

        Raises
        ------
        TypeError, ValueError
            If an argument breaks its rule, or the codec has no diffusion model and it is not None.
        """


def check_codec(codec: Any) -> None:
    """Raise TypeError unless this is a codec."""
    if isinstance(codec, type) or not isinstance(codec, Codec):
        kind = codec.__name__ if isinstance(codec, type) else f"a {type(codec).__name__}"
        raise TypeError(f"codec is {kind}; it must be a codec such as IdentityCodec((3, 32, 32))")
