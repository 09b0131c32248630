# SPDX-License-Identifier: Apache-2.0
"""Codecs to watch and to interrupt methods with."""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddkern.latents import IdentityCodec


class WatchedCodec(IdentityCodec):
    """Pixels as latents; a decoded image also shows the noise it was given.

    Parameters
    ----------
    image_shape : (int, int, int)
    die_at : str, optional
        ``"encode:2"`` kills the process, as ``kill -9`` does, when it encodes for the third time.
    """

    name: ClassVar[str] = "watched"
    calls: list[str]
    _die_at: str

    def __init__(self, image_shape: tuple[int, int, int], die_at: str = "") -> None:
        super().__init__(image_shape)
        # The class above is frozen.
        object.__setattr__(self, "calls", [])
        object.__setattr__(self, "_die_at", die_at)

    def decoding(
        self, strength: Any = None, steps: Any = None, guidance: Any = None
    ) -> dict[str, Any]:
        """Keep the strength, to see that it arrives."""
        return {"strength": 0.5 if strength is None else strength}

    def encode(self, images: NDArray[np.uint8], **arguments: Any) -> NDArray[np.float32]:
        """Encode, or die."""
        self._count("encode")
        return super().encode(images, **arguments)

    def decode(
        self, latents: NDArray[np.float32], labels: NDArray[np.int64], **arguments: Any
    ) -> NDArray[np.uint8]:
        """Decode with noise of ``strength`` in the first pixel, or die."""
        self._count("decode")
        strength, seed, ids = (arguments.pop(name) for name in ("strength", "seed", "ids"))
        images = super().decode(latents, labels, **arguments)
        for image, number in zip(images, ids, strict=True):
            draw = np.random.Generator(np.random.Philox(key=[seed, number])).integers(256)
            image[0, 0, 0] = int(strength * draw)
        return images

    def _count(self, call: str) -> None:
        if f"{call}:{self.calls.count(call)}" == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls.append(call)
