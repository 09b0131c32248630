# SPDX-License-Identifier: Apache-2.0
"""Models and samplers of diffusers as plain values. Importing this module needs torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from ddkern.models import digest_of_weights

__all__ = ["describe_model", "describe_scheduler"]


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Class, type, configuration and a digest of the weights of a model."""
    return {
        "class": type(model).__name__,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "config": _plain_config(model.config),
        "weights": digest_of_weights(model),
    }


def describe_scheduler(scheduler: Any) -> dict[str, Any]:
    """Class and configuration of a sampler."""
    return {"class": type(scheduler).__name__, "config": _plain_config(scheduler.config)}


def _plain_config(config: Any) -> dict[str, Any]:
    """What a configuration says about results: not where it was read, nor by which version."""
    values = config if isinstance(config, Mapping) else config.to_dict()
    return {
        name: _plain(value)
        for name, value in values.items()
        if not name.startswith("_") and "version" not in name
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # which JSON has no number for
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
