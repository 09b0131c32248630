# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found, network by network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddkern.files import replaced_when_complete

__all__ = ["Evaluation", "NetworkResult"]

_FORMAT = "ddkern-evaluation"
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResult:
    """One trained and tested network.

    Attributes
    ----------
    index : int
    seed : int
        Of its weights and, unless the protocol fixes them, of its batches.
    epochs : tuple of int
        After which the test set was looked at, counted from 0.
    accuracies : tuple of float
        Found there, in [0, 1].
    loss : float
        Training loss of the last epoch.
    seconds : float
        Of training and testing, not counting an interrupted part.
    """

    index: int
    seed: int
    epochs: tuple[int, ...]
    accuracies: tuple[float, ...]
    loss: float
    seconds: float

    @property
    def last(self) -> float:
        """Accuracy after the last epoch."""
        return self.accuracies[-1]

    @property
    def best(self) -> float:
        """The highest accuracy of all looks: chosen on the test set, so optimistic."""
        return max(self.accuracies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The accuracy of students of a distilled set under a protocol.

    All networks share the one set: deviations are those of training, not of distillation.

    Attributes
    ----------
    conditions : mapping
        All that the numbers depend on: protocol, set, test set, weighting, labels, network, seeds.
    environment : mapping
        Where it ran: device, threads, precision, flags of determinism, versions, commit.
    networks : tuple of NetworkResult
    """

    conditions: Mapping[str, Any]
    environment: Mapping[str, Any]
    networks: tuple[NetworkResult, ...]

    def __str__(self) -> str:
        looks = len(self.networks[0].accuracies)
        best = ""
        if looks > 1:
            best = (
                f", best on test {100 * self.mean_best:.2f} +- {100 * self.std_best:.2f} % of "
                f"{looks} looks"
            )
        return (
            f"{self.conditions['protocol']}: {100 * self.mean:.2f} +- {100 * self.std:.2f} % "
            f"({len(self.networks)} networks, {self.conditions['model']}, "
            f"weights {self.conditions['weights']}){best}"
        )

    @property
    def last(self) -> tuple[float, ...]:
        """Accuracy of every network after its last epoch."""
        return tuple(network.last for network in self.networks)

    @property
    def best(self) -> tuple[float, ...]:
        """Best-on-test accuracy of every network."""
        return tuple(network.best for network in self.networks)

    @property
    def mean(self) -> float:
        """Mean of :attr:`last`."""
        return float(np.mean(self.last))

    @property
    def std(self) -> float:
        """Standard deviation of :attr:`last`, divided by n as published results are."""
        return float(np.std(self.last))

    @property
    def standard_error(self) -> float:
        """Of :attr:`mean`, with the deviation divided by n - 1; 0 for one network."""
        n = len(self.networks)
        return float(np.std(self.last, ddof=1) / n**0.5) if n > 1 else 0.0

    @property
    def mean_best(self) -> float:
        """Mean of :attr:`best`."""
        return float(np.mean(self.best))

    @property
    def std_best(self) -> float:
        """Standard deviation of :attr:`best`, divided by n."""
        return float(np.std(self.best))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, with the summary."""
        summary = {
            "last_mean": self.mean,
            "last_std": self.std,
            "best_on_test_mean": self.mean_best,
            "best_on_test_std": self.std_best,
        }
        return {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "summary": summary,
            "conditions": dict(self.conditions),
            "environment": dict(self.environment),
            "networks": [asdict(network) for network in self.networks],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON; the file appears complete or not at all."""
        with replaced_when_complete(Path(path)) as file:
            file.write((json.dumps(self.as_dict(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read a file of :meth:`save`.

        Raises
        ------
        ValueError
            If it holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            known = (content["format"], content["format_version"]) == (_FORMAT, _FORMAT_VERSION)
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise ValueError(f"{path} is not an evaluation of version {_FORMAT_VERSION}")
        return cls(
            conditions=content["conditions"],
            environment=content["environment"],
            networks=tuple(network_from(entry) for entry in content["networks"]),
        )


def network_from(entry: Mapping[str, Any]) -> NetworkResult:
    """A :class:`NetworkResult` from its plain values."""
    return NetworkResult(
        **{**entry, "epochs": tuple(entry["epochs"]), "accuracies": tuple(entry["accuracies"])}
    )
