# SPDX-License-Identifier: Apache-2.0
"""Names for the types in ddkern's signatures."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

__all__ = ["Algorithm", "Array", "ArrayLike", "DeviceArgument", "InitMethod", "IsaLevel"]

Array: TypeAlias = Any
"""An array of the library that the caller's data came in: numpy, torch, or one that speaks DLPack
and has ``__array_namespace__``. There is no common static type for these."""

ArrayLike: TypeAlias = Any
"""An :data:`Array`, or anything that ``numpy.asarray`` understands, such as nested lists."""

DeviceArgument: TypeAlias = Any
"""A device of torch or its name, a list of these, ``"all"``, or None."""

InitMethod: TypeAlias = Literal["k-means++", "random"]
"""How starting centroids are drawn."""

Algorithm: TypeAlias = Literal["auto", "gram", "streaming"]
"""How a group is worked on. The choice changes the time a call takes, never its result."""

IsaLevel: TypeAlias = Literal["base", "avx2", "avx512", "avx512vnni", "avx512bf16"]
"""Instruction set levels, weakest first. All give the same bits."""
