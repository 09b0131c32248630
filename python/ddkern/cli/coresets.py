# SPDX-License-Identifier: Apache-2.0
"""From options to a method that chooses real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddkern.cli.arguments import naming

if TYPE_CHECKING:
    from ddkern.data import ImageDataset
    from ddkern.distill import Method

__all__ = ["FeatureOptions", "choose_coreset"]

_FEATURES = ("pixels", "pca", "network")


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """The options that say what images are compared by; None where they were not given."""

    features: str | None
    pca_components: int | None
    network: str | None
    network_weights: Path | None
    device: str

    def check(self) -> None:
        """Refuse what would have no effect."""
        from ddkern.checks import check_choice

        if self.features is not None:
            check_choice("--features", self.features, _FEATURES)
        for option, value, needed in (
            ("--pca-components", self.pca_components, "pca"),
            ("--network", self.network, "network"),
            ("--network-weights", self.network_weights, "network"),
        ):
            if value is not None and self.features != needed:
                raise ValueError(f"{option}={str(value)!r} is for --features {needed}")

    def refuse(self, method: str) -> None:
        """Raise ValueError if an option is given: the method compares no images."""
        for option, value in (
            ("--features", self.features),
            ("--pca-components", self.pca_components),
            ("--network", self.network),
            ("--network-weights", self.network_weights),
        ):
            if value is not None:
                raise ValueError(
                    f"{option}={str(value)!r}, but --method {method} compares no images by features"
                )

    def build(self, train: ImageDataset, seed: int) -> Any:
        """The feature space."""
        from ddkern.checks import as_count
        from ddkern.distill import PcaFeatures, PixelFeatures

        if self.features == "pca":
            if self.pca_components is None:
                raise ValueError("--features=pca needs --pca-components, an integer of at least 1")
            return PcaFeatures(n_components=as_count("--pca-components", self.pca_components))
        if self.features != "network":
            return PixelFeatures()
        from ddkern.optional import import_optional

        import_optional("torch", "--features=network", "torch")
        from ddkern.cli.networks import build_network
        from ddkern.distill import NetworkFeatures
        from ddkern.training import choose_device

        model = build_network(
            "--network",
            self.network or "convnet-d3",
            "--network-weights",
            self.network_weights,
            n_classes=train.n_classes,
            image_shape=train.image_shape,
            seed=seed,
        )
        return NetworkFeatures(model=model, device=choose_device(self.device))


def choose_coreset(
    name: str,
    ipc: int,
    scores: Path | None,
    features: FeatureOptions,
    train: ImageDataset,
    seed: int,
) -> Method:
    """The method of this name with its options.

    Raises
    ------
    FileNotFoundError, ValueError
        If an option is missing, or has no effect on this method.
    """
    from ddkern.distill import make_method

    features.check()
    options: dict[str, Any] = {} if name == "whole" else {"ipc": ipc}
    if (scores is not None) != (name == "forgetting"):
        given = "--scores is missing" if scores is None else f"--scores={str(scores)!r} is given"
        raise ValueError(f"{given}; it goes with --method forgetting, which needs it")
    if scores is not None:
        options["scores"] = _read_scores(scores)
    if name in ("random", "forgetting", "whole"):
        if features.features is not None:
            raise ValueError(
                f"--features={features.features!r}, but --method {name} compares no images"
            )
    else:
        options["features"] = features.build(train, seed)
    return make_method(name, **options)


def _read_scores(path: Path) -> Any:
    import numpy as np

    if not path.is_file():
        raise FileNotFoundError(f"--scores={str(path)!r} does not exist; it must be a .npy file")
    with naming(f"--scores={str(path)!r}"):
        return np.load(path, allow_pickle=False)
