# SPDX-License-Identifier: Apache-2.0
"""Evaluation protocols: frozen, versioned records of how a student is trained and tested.

A protocol never changes: what changes gets a new version beside the old one. ``"E1-dsa@1"`` names a
record for good, ``"E1-dsa"`` the newest version of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from ddkern.augment import DSA, CutMix, RandomResizedCrop, ShufflePatches
from ddkern.checks import as_count
from ddkern.training import Augmentation, Decay, Optimizer, Recipe
from ddkern.training.recipe import describe

__all__ = ["Protocol", "get_protocol", "protocol_names"]

# Montages of patches are made for images of at least this side; smaller ones are one patch.
_PATCHES_FROM_SIDE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How students are trained on a distilled set, and when they are tested.

    Attributes
    ----------
    id : str
    version : int
    title : str
        One line for people.
    source : str
        Where it comes from.
    model : str
        A name for :func:`ddkern.models.make_model`; ``"convnet"`` is the ConvNet whose depth
        follows from the side of the images: 3 up to 32 pixels, 4 up to 64, 5 up to 128.
    model_options : tuple of (str, value) pairs
    sides : (int, int)
        Least and largest side of the images that it is defined for, in pixels.
    recipe : Recipe
    labels : {"set", "stored", "online"}
        Those of the set (soft ones where it has them); those that a teacher gave to every
        augmented batch of every epoch once and for all networks (FKD); or those that it gives
        while each network is trained.
    data_seed : int or None
        The seed of orders and augmentations that all networks share; None lets each network have
        its own.
    uses_student_lr : bool
        Whether a learning rate that comes with the set replaces the recipe's.
    n_networks : int
    looks : {"last", "every_10", "last_fifth"}
        After which epochs the test set is looked at: the last one alone; every tenth and the last;
        all of the last fifth.
    epochs_by_share : tuple of (float, int) pairs
        Epochs for sets of up to this share of the real training images, ascending; beyond the last
        its epochs. Empty where the recipe's number holds for all.
    """

    id: str
    version: int
    title: str
    source: str
    model: str
    model_options: tuple[tuple[str, Any], ...] = ()
    sides: tuple[int, int]
    recipe: Recipe
    labels: Literal["set", "stored", "online"] = "set"
    data_seed: int | None = None
    uses_student_lr: bool = False
    n_networks: int = 5
    looks: Literal["last", "every_10", "last_fifth"] = "last"
    epochs_by_share: tuple[tuple[float, int], ...] = ()

    @property
    def key(self) -> str:
        """Id and version: what is stored with every number."""
        return f"{self.id}@{self.version}"

    def digest(self) -> str:
        """SHA-256 of every field."""
        return hashlib.sha256(json.dumps(describe(self), sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """All fields as plain values."""
        described: dict[str, Any] = describe(self)
        return described

    def model_for(self, image_size: tuple[int, int]) -> str:
        """The name of the network for images of this size.

        Raises
        ------
        ValueError
            If the protocol is not defined for it.
        """
        least, largest = self.sides
        if min(image_size) < least or max(image_size) > largest:
            raise ValueError(
                f"protocol={self.key!r} is defined for images with sides of {least} to {largest} "
                f"pixels; these have {image_size[0]} x {image_size[1]} (another network may be "
                "chosen with model)"
            )
        if self.model != "convnet":
            return self.model
        side = max(image_size)
        return "convnet-d3" if side <= 32 else "convnet-d4" if side <= 64 else "convnet-d5"

    def recipe_for(self, image_size: tuple[int, int], share: float | None) -> Recipe:
        """The recipe for images of this size in a set of this share of the real images.

        Raises
        ------
        ValueError
            If the number of epochs depends on the share, and it is None.
        """
        recipe = self.recipe
        if max(image_size) < _PATCHES_FROM_SIDE:
            recipe = replace(recipe, augment=_without_patches(recipe.augment))
        if not self.epochs_by_share:
            return recipe
        if share is None:
            raise ValueError(
                f"n_train=None; the epochs of protocol {self.key!r} depend on the share of the "
                "real training images in the set, so their number is needed"
            )
        epochs = next(
            (e for s, e in self.epochs_by_share if share <= s), self.epochs_by_share[-1][1]
        )
        return replace(recipe, epochs=epochs)

    def test_epochs(self, epochs: int, looks: int | None = None) -> tuple[int, ...]:
        """The epochs, counted from 0, after which the test set is looked at; the last one always.

        Parameters
        ----------
        epochs : int
        looks : int, optional
            So many, evenly spread, instead of the protocol's.
        """
        last = epochs - 1
        if looks is not None:
            count = as_count("looks", looks, at_most=epochs)
            return tuple(sorted({(epochs * (i + 1)) // count - 1 for i in range(count)}))
        if self.looks == "every_10":
            return tuple(sorted({*range(9, epochs, 10), last}))
        if self.looks == "last_fifth":
            return tuple(range(epochs - max(1, epochs // 5), epochs))
        return (last,)


def get_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of a name.

    Parameters
    ----------
    protocol : str or Protocol
        ``"<id>"``, ``"<id>@<version>"``, or a protocol, which is returned.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If there is no such id, or no such version of it.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if not isinstance(protocol, str):
        raise TypeError(f"protocol is a {type(protocol).__name__}; it must be a name or a Protocol")
    name, at, version = protocol.partition("@")
    versions = {p.version: p for p in _PROTOCOLS if p.id == name}
    if not versions:
        raise ValueError(f"protocol={protocol!r}; the protocols are {', '.join(protocol_names())}")
    if not at:
        return versions[max(versions)]
    if not version.isdecimal() or int(version) not in versions:
        known = ", ".join(f"{name}@{v}" for v in sorted(versions))
        raise ValueError(f"protocol={protocol!r}: {name} has no version {version!r}, only {known}")
    return versions[int(version)]


def protocol_names() -> tuple[str, ...]:
    """The ids of all protocols, in the order of their numbers."""
    return tuple(dict.fromkeys(p.id for p in _PROTOCOLS))


def _without_patches(augment: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
    """What is left for images of one patch: RDED's crops begin at the share of a patch, here 1."""
    if not any(isinstance(a, ShufflePatches) for a in augment):
        return augment
    whole = RandomResizedCrop(scale=(1.0, 1.0))
    kept = (a for a in augment if not isinstance(a, ShufflePatches))
    return tuple(whole if isinstance(a, RandomResizedCrop) else a for a in kept)


def _convnet_recipe(epochs: int, augment: tuple[DSA, ...]) -> Recipe:
    """The loop of DC's evaluation, which runs an epoch more than its option says.

    The rate falls after the epoch that its code numbers ``epochs // 2 + 1``, counted from 0.
    """
    return Recipe(
        epochs=epochs + 1,
        batch_size=256,
        optimizer=Optimizer(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4),
        decay=Decay(kind="step", at=epochs // 2 + 2, factor=0.1, restart=True),
        augment=augment,
    )


_SOFT_LABEL_OPTIMIZER = Optimizer(name="adamw", lr=1e-3, weight_decay=0.01)

_FKD_RECIPE = Recipe(
    epochs=300,
    batch_size=1024,
    optimizer=_SOFT_LABEL_OPTIMIZER,
    decay=Decay(kind="cosine"),
    augment=(RandomResizedCrop(scale=(0.08, 1.0)),),
    mixing=CutMix(alpha=1.0),
    loss="kl",
    temperature=20.0,
)

_PROTOCOLS = (
    Protocol(
        id="E1-dc",
        version=1,
        title="ConvNet, 300 epochs, no augmentation",
        source="B. Zhao et al., Dataset condensation with gradient matching, ICLR 2021, and its "
        "code (evaluate_synset)",
        model="convnet",
        sides=(8, 128),
        recipe=_convnet_recipe(300, ()),
        uses_student_lr=True,
    ),
    Protocol(
        id="E1-dsa",
        version=1,
        title="ConvNet, 1000 epochs with DSA",
        source="B. Zhao and H. Bilen, Dataset condensation with differentiable Siamese "
        "augmentation, ICML 2021, and its code; also MTT (G. Cazenavette et al., CVPR 2022)",
        model="convnet",
        sides=(8, 128),
        recipe=_convnet_recipe(1000, (DSA(),)),
        uses_student_lr=True,
    ),
    Protocol(
        id="E2",
        version=1,
        title="soft labels of a teacher, stored for every crop of every epoch",
        source="Z. Yin et al., Squeeze, recover and relabel, NeurIPS 2023 (SRe2L), with fast "
        "knowledge distillation (Z. Shen and E. Xing, ECCV 2022), and its code",
        model="resnet-18",
        model_options=(("norm", "batch"),),
        sides=(9, 512),
        recipe=_FKD_RECIPE,
        labels="stored",
        data_seed=42,
        n_networks=3,
        looks="every_10",
    ),
    Protocol(
        id="E2-online",
        version=1,
        title="as E2, with a teacher that labels while each student is trained",
        source="as E2; train_KD of its code takes batches of 512",
        model="resnet-18",
        model_options=(("norm", "batch"),),
        sides=(9, 512),
        recipe=replace(_FKD_RECIPE, batch_size=512),
        labels="online",
        n_networks=3,
        looks="every_10",
    ),
    Protocol(
        id="E3",
        version=1,
        title="RDED: small batches, half a cosine, patches shuffled, teacher online",
        source="P. Sun et al., On the diversity and realism of distilled dataset, CVPR 2024 "
        "(arXiv 2312.03526), and its code",
        model="resnet-18",
        model_options=(("norm", "batch"),),
        sides=(9, 512),
        recipe=Recipe(
            epochs=300,
            batch_size=100,
            optimizer=_SOFT_LABEL_OPTIMIZER,
            decay=Decay(kind="half_cosine"),
            augment=(ShufflePatches(factor=2), RandomResizedCrop(scale=(0.5, 1.0))),
            mixing=CutMix(alpha=1.0),
            loss="kl",
            temperature=20.0,
            unmixed_forward=True,
        ),
        labels="online",
        n_networks=3,
        looks="last_fifth",
    ),
    Protocol(
        id="E9",
        version=1,
        title="SelMatch: ResNet-18 with batch norm, as many steps as the set is small",
        source="Y. Lee and H. W. Chung, SelMatch, ICML 2024 (arXiv 2406.18561), and its code",
        model="resnet-18",
        model_options=(("norm", "batch"),),
        sides=(9, 128),
        recipe=Recipe(
            epochs=1000,
            batch_size=128,
            optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4),
            decay=Decay(kind="cosine_to_hundredth"),
            augment=(DSA(),),
            augment_real=(DSA(strategy="crop_flip", mode="all"),),
        ),
        looks="every_10",
        epochs_by_share=((0.05, 1000), (0.10, 500), (0.20, 250), (0.30, 167)),
    ),
    Protocol(
        id="small",
        version=1,
        title="a narrow ConvNet for some hundred steps: for demonstrations and small machines",
        source="of ddkern's own; no published number was found with it",
        model="convnet",
        model_options=(("width", 64),),
        sides=(8, 128),
        recipe=Recipe(
            epochs=200,
            batch_size=128,
            optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4),
            decay=Decay(kind="cosine"),
        ),
        epochs_by_share=((0.25, 200), (1.0, 30)),
    ),
)
