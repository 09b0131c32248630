# SPDX-License-Identifier: Apache-2.0
"""Methods by name."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from ddkern.checks import check_choice
from ddkern.distill.method import Method
from ddkern.distill.methods.d4m import D4M
from ddkern.distill.methods.dc import DC
from ddkern.distill.methods.ddoq import DDOQ
from ddkern.distill.methods.dm import DM
from ddkern.distill.methods.forgetting import Forgetting
from ddkern.distill.methods.herding import Herding
from ddkern.distill.methods.k_center import KCenter
from ddkern.distill.methods.k_means import KMeansNearest
from ddkern.distill.methods.mtt import MTT
from ddkern.distill.methods.random import Random
from ddkern.distill.methods.whole import Whole

__all__ = ["make_method", "method_names"]

_METHODS: dict[str, type[Any]] = {
    method.name: method
    for method in (
        D4M,
        DC,
        DDOQ,
        DM,
        Forgetting,
        Herding,
        KCenter,
        KMeansNearest,
        MTT,
        Random,
        Whole,
    )
}


def method_names() -> tuple[str, ...]:
    """The names that :func:`make_method` knows, sorted."""
    return tuple(sorted(_METHODS))


def make_method(name: str, **options: Any) -> Method:
    """A method of distillation by its name.

    Parameters
    ----------
    name : str
        One of :func:`method_names`.
    **options
        Its fields. Those without a default must be there.

    Returns
    -------
    Method

    Raises
    ------
    TypeError, ValueError
        If the name is unknown, or an option is unknown, missing, or breaks its rule.

    Examples
    --------
    >>> from ddkern.distill import PcaFeatures, make_method
    >>> make_method("herding", ipc=10, features=PcaFeatures(n_components=32)).options()
    {'ipc': 10, 'features': {'name': 'pca', 'n_components': 32}}
    """
    method = _METHODS[check_choice("name", name, method_names())]
    known = [field.name for field in fields(method)]
    for option in options:
        if option not in known:
            raise TypeError(f"{option} is no option of {name}; it takes {', '.join(known)}")
    for field in fields(method):
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in options:
            raise TypeError(f"{name} needs the option {field.name}")
    made: Method = method(**options)
    return made
