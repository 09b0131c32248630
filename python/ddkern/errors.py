# SPDX-License-Identifier: Apache-2.0
"""Exceptions and warnings of ddkern.

Wrong arguments raise ``TypeError`` or ``ValueError`` and a lack of memory ``MemoryError``; only
what Python has no class for is defined here.
"""

from __future__ import annotations

__all__ = ["ConvergenceWarning", "CudaError", "EmptyCellWarning", "UnsupportedError"]


class UnsupportedError(RuntimeError):
    """What was asked for is not part of this build, or this machine cannot run it."""


class CudaError(RuntimeError):
    """The CUDA runtime reported an error."""


class ConvergenceWarning(UserWarning):
    """A group reached ``max_iter`` before its stopping rule held.

    The result is still consistent: its assignments are exact for the centroids it returns.
    """


class EmptyCellWarning(UserWarning):
    """A group has fewer distinct rows than centroids, so some of its cells have mass 0."""
