# SPDX-License-Identifier: Apache-2.0
"""From options to a method that learns images."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddkern.checks import as_count
from ddkern.cli.arguments import naming, parse_arch

if TYPE_CHECKING:
    from ddkern.data import ImageDataset
    from ddkern.distill import Method

__all__ = ["LEARNED_METHODS", "LearnedOptions", "rehearse"]

LEARNED_METHODS = ("dc", "dm", "mtt")

# Fields of the methods that other options give.
_RESERVED = ("ipc", "experts", "iterations", "model", "model_options", "device", "folder", "looks")


@dataclass(frozen=True, slots=True)
class LearnedOptions:
    """The options that say how images are learned; None where they were not given."""

    experts: Path | None
    published: str | None
    iterations: int | None
    look_every: int | None
    look_protocol: str | None
    settings: list[str] | None

    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value not in (None, [])}

    def refuse(self, method: str) -> None:
        """Raise ValueError if an option is given that this method has no use for."""
        for name, value in self.given().items():
            option = "set" if name == "settings" else name.replace("_", "-")
            shown = value[0] if isinstance(value, list) else value
            if method not in LEARNED_METHODS:
                known = ", ".join(LEARNED_METHODS)
                raise ValueError(f"--{option}={str(shown)!r} is for --method {known}")
            if name in ("experts", "published") and method != "mtt":
                raise ValueError(f"--{option}={str(shown)!r} is for --method mtt")

    def build(
        self,
        method: str,
        ipc: int,
        network: str | None,
        test: ImageDataset | None,
        device: str,
        folder: Path,
    ) -> Method:
        """The method, with all options checked."""
        from ddkern.distill import MTT, Looks, make_method

        self.refuse(method)
        options: dict[str, Any] = {"device": device, "folder": folder, **self._settings()}
        if self.iterations is not None:
            options["iterations"] = as_count("--iterations", self.iterations)
        if self.look_every is not None:
            if test is None:
                raise ValueError(
                    f"--look-every={self.look_every}, but the data set has no split 'test'"
                )
            with naming("--look-every, --look-protocol"):
                options["looks"] = Looks(
                    test=test, every=self.look_every, protocol=self.look_protocol or "E1-dsa"
                )
        elif self.look_protocol is not None:
            raise ValueError(f"--look-protocol={self.look_protocol!r} goes with --look-every")
        if method != "mtt":
            if network is not None:
                options["model"], options["model_options"] = parse_arch("--network", network)
            return self._made(lambda: make_method(method, ipc=ipc, **options))
        if network is not None:
            raise ValueError(f"--network={network!r}, but the network is that of --experts")
        from ddkern.experts import ExpertBuffer

        if self.experts is None:
            raise ValueError(
                "--experts is missing; --method mtt needs a folder that 'ddkern experts train' made"
            )
        with naming("--experts"):
            buffer = ExpertBuffer.open(self.experts)
        published = self.published
        if published is None:
            return self._made(lambda: make_method(method, ipc=ipc, experts=buffer, **options))
        with naming("--published"):
            MTT.published_zca(published, ipc)
        return self._made(lambda: MTT.published(published, ipc, buffer, **options))

    def _made(self, make: Any) -> Method:
        shown = " ".join(self.settings or [])
        with naming(f"--set {shown}") if shown else contextlib.nullcontext():
            made: Method = make()
            return made

    def _settings(self) -> dict[str, Any]:
        """``--set name=value`` as fields: JSON where it can be read so, else a string."""
        from ddkern.cli.experts import parse_augment

        found: dict[str, Any] = {}
        for text in self.settings or []:
            name, equals, value = text.partition("=")
            name = name.replace("-", "_")
            if not (name and equals):
                raise ValueError(f"--set={text!r}; it must be name=value, such as lr_images=10")
            if name in _RESERVED:
                raise ValueError(f"--set={text!r}; {name} has an option of its own")
            if name == "augment":
                found[name] = parse_augment(value, "--set augment")
                continue
            try:
                found[name] = json.loads(value)
            except ValueError:
                found[name] = value
        return found


def rehearse(
    method: Any, train: ImageDataset, normalization: str, seed: int
) -> list[dict[str, Any]]:
    """What the iterations of a method will cost, from two of them.

    Returns
    -------
    list of dict
        One stage, as :func:`ddkern.cli.cost.estimate` describes them.
    """
    from ddkern.cli.cost import stage_cost
    from ddkern.cli.sets import choose_normalization
    from ddkern.distill import distill

    seconds: list[float] = []
    distill(
        train,
        replace(method, iterations=2, folder=None, looks=None),
        normalization=choose_normalization(normalization, train, train.image_shape[0]),
        random_state=seed,
        progress=lambda progress: seconds.append(progress.seconds_elapsed),
    )
    # The first iteration also loads what all of them need.
    each = seconds[1] - seconds[0]
    n_values = method.ipc * train.n_classes * math.prod(train.image_shape)
    # Images, their momentum and their average.
    return [stage_cost(method.name, each * method.iterations, method.device, 3 * 4 * n_values)]
