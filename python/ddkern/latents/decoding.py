# SPDX-License-Identifier: Apache-2.0
"""How a codec with a diffusion model decodes: strength, steps, guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ddkern.checks import as_count, as_fraction, as_number

__all__ = ["DECODING_FILE", "Decoding"]

DECODING_FILE = "ddkern_decoding.json"
"""What a folder with a diffusion model may hold: values of its own, by the names of the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """The values that :meth:`ddkern.latents.Codec.decode` runs with.

    Attributes
    ----------
    strength : float
        In [0, 1]. Of the steps, ``int(steps * strength)`` are run.
    steps : int
        From pure noise to an image.
    guidance : float
        At least 1, which is without.
    """

    strength: float
    steps: int
    guidance: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", as_fraction("strength", self.strength))
        object.__setattr__(self, "steps", as_count("steps", self.steps))
        guidance = as_number("guidance", self.guidance, at_least=1)
        object.__setattr__(self, "guidance", guidance)

    def changed(self, strength: Any = None, steps: Any = None, guidance: Any = None) -> Decoding:
        """These values, but those that are not None instead of its own."""
        given = {"strength": strength, "steps": steps, "guidance": guidance}
        return Decoding(
            **asdict(self) | {name: value for name, value in given.items() if value is not None}
        )

    def changed_by_file(self, content: Any, origin: str) -> Decoding:
        """These values, but those of a file instead of its own.

        Parameters
        ----------
        content : object
            What was read from it.
        origin : str
            What messages call it.

        Raises
        ------
        ValueError
            If it holds something else.
        """
        if not isinstance(content, Mapping) or not content.keys() <= asdict(self).keys():
            raise ValueError(
                f"{origin} holds {content!r}; it must be a record of strength, steps and guidance"
            )
        try:
            return self.changed(**content)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{origin}: {error}") from error
