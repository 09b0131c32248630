# SPDX-License-Identifier: Apache-2.0
"""What ddkern is compared with. Every peer is optional: absent ones are reported as absent."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.baselines.interface import Implementation


@dataclass(frozen=True)
class Entry:
    """Where an implementation lives and how tables name it."""

    key: str
    title: str
    module: str
    attribute: str
    suites: tuple[str, ...]


_ALL = ("lloyd", "end_to_end", "scaling")

SUBJECT = Entry("ddkern", "ddkern", "bench.kmeans.subject", "Ddkern", _ALL)
PEERS: tuple[Entry, ...] = (
    Entry("sklearn", "scikit-learn", "bench.baselines.sklearn", "Sklearn", _ALL),
    Entry("sklearnex", "scikit-learn-intelex", "bench.baselines.sklearnex", "Sklearnex", _ALL),
    Entry("faiss", "faiss", "bench.baselines.faiss", "Faiss", _ALL),
    Entry(
        "faiss_own_seeds",
        "faiss, own k-means++",
        "bench.baselines.faiss",
        "FaissOwnSeeds",
        ("end_to_end",),
    ),
    Entry("torch", "torch", "bench.baselines.torch", "Torch", _ALL),
)
ENTRIES: dict[str, Entry] = {entry.key: entry for entry in (SUBJECT, *PEERS)}


def create(key: str, threads: int) -> Implementation:
    """Import and start an implementation; ``ImportError`` where it is not installed."""
    entry = ENTRIES[key]
    kind = getattr(importlib.import_module(entry.module), entry.attribute)
    implementation: Implementation = kind(threads)
    return implementation
