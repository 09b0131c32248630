# SPDX-License-Identifier: Apache-2.0
"""Diffusion priors of one's own, where no pretrained ones exist.

Importing this package needs numpy alone; ``fit_prior`` imports torch when it is first used.

Public names
------------
fit_prior
    Fit an autoencoder and a diffusion model to a data set, and save them as diffusers does.
PriorRecipe, AutoencoderRecipe, DiffusionRecipe
    What is built and how it is trained.
FittedPrior, load_prior_report
    What came out.
rehearse_prior
    What a fit would cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddkern.priors.recipe import AutoencoderRecipe, DiffusionRecipe, PriorRecipe

if TYPE_CHECKING:
    from ddkern.priors.fit import FittedPrior, fit_prior, load_prior_report, rehearse_prior

__all__ = [
    "AutoencoderRecipe",
    "DiffusionRecipe",
    "FittedPrior",
    "PriorRecipe",
    "fit_prior",
    "load_prior_report",
    "rehearse_prior",
]

_FROM_FIT = ("FittedPrior", "fit_prior", "load_prior_report", "rehearse_prior")


def __getattr__(name: str) -> Any:
    if name in _FROM_FIT:
        from ddkern.optional import import_optional

        import_optional("torch", name, "torch")
        from ddkern.priors import fit

        return getattr(fit, name)
    raise AttributeError(f"module 'ddkern.priors' has no attribute {name!r}")
