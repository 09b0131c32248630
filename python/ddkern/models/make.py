# SPDX-License-Identifier: Apache-2.0
"""One function for every network: by name, by factory, or as it is."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, TypeAlias

import torch
from torch import nn

from ddkern.checks import as_seed
from ddkern.models.alexnet import AlexNet, AlexNetOptions
from ddkern.models.classifier import ClassifierOptions
from ddkern.models.convnet import ConvNet, ConvNetOptions
from ddkern.models.from_transformers import TRANSFORMERS_MODELS
from ddkern.models.mlp import MLP, MLPOptions
from ddkern.models.resnet import ResNet, ResNetOptions
from ddkern.models.vgg import VGG, VGGOptions

__all__ = ["ModelFactory", "make_model", "model_names"]

ModelFactory: TypeAlias = Callable[..., nn.Module]
"""Returns a new network. It is called with those of the keywords ``in_channels``, ``n_classes`` and
``image_size`` that its signature names (all of them for ``**kwargs``), and with the options."""

# Name to class of the network, class of its options, and the options that the name fixes.
_OWN_MODELS: dict[str, tuple[type[nn.Module], type[ClassifierOptions], dict[str, Any]]] = {
    "alexnet": (AlexNet, AlexNetOptions, {}),
    "convnet-d3": (ConvNet, ConvNetOptions, {"depth": 3}),
    "convnet-d4": (ConvNet, ConvNetOptions, {"depth": 4}),
    "convnet-d5": (ConvNet, ConvNetOptions, {"depth": 5}),
    "mlp": (MLP, MLPOptions, {}),
    "resnet-18": (ResNet, ResNetOptions, {}),
    "vgg-11": (VGG, VGGOptions, {}),
}


def model_names() -> tuple[str, ...]:
    """The names that :func:`make_model` knows, sorted."""
    return tuple(sorted({*_OWN_MODELS, *TRANSFORMERS_MODELS}))


def make_model(
    model: str | nn.Module | ModelFactory,
    *,
    n_classes: int,
    image_size: int | tuple[int, int],
    in_channels: int = 3,
    seed: int | torch.Generator | None = None,
    **options: Any,
) -> nn.Module:
    """A network for images of one size, untrained, in training mode, on the CPU.

    Parameters
    ----------
    model : str, callable or nn.Module
        A name of :func:`model_names`; a class or function that returns a network, see
        :data:`ModelFactory`; or a network, which is returned as it is, weights included.
    n_classes : int
        Length of the output.
    image_size : int or (int, int)
        Side, or height and width, in pixels.
    in_channels : int
        Channels of an image.
    seed : int or torch.Generator, optional
        Fixes the weights: the same integer gives the same weights on the same version of torch,
        whatever was drawn before, and leaves torch's global generator as it was. A generator on
        the CPU is asked for one number, which is used so. By default the weights come from torch's
        global generator, as those of any module.
    **options
        For a name: fields of the options of that network (``width``, ``norm``, ...), or of the
        configuration in transformers. For a callable: passed on.

    Returns
    -------
    nn.Module
        Of the names, all have a method ``embed``. Initialisation is that of each layer's class in
        torch, which is what published results use, or that of transformers.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range, the name is unknown, the network has no
        such option, or a network as it is comes with a seed or options.
    UnsupportedError
        If the name needs the package transformers, and it is not installed.

    Examples
    --------
    >>> from ddkern.models import make_model
    >>> net = make_model("convnet-d3", n_classes=10, image_size=32, seed=0)
    >>> sum(p.numel() for p in net.parameters())
    320010
    """
    shape = ClassifierOptions(
        in_channels=in_channels,
        n_classes=n_classes,
        image_size=image_size,  # type: ignore[arg-type]
    )
    if isinstance(model, nn.Module):
        if seed is not None or options:
            raise ValueError(
                f"model is a {type(model).__name__} that has its weights already; seed and options "
                "need a name or a factory, such as its class"
            )
        return model
    if isinstance(model, str):
        build = _builder_of(model, shape, options)
    elif callable(model):
        build = _call_of(model, shape, options)
    else:
        raise TypeError(
            f"model is a {type(model).__name__}; it must be a name, a callable that returns a "
            "network, or an nn.Module"
        )
    with _weights_from(seed):
        made: Any = build()
    if not isinstance(made, nn.Module):
        raise TypeError(f"model returned a {type(made).__name__}; it must return an nn.Module")
    return made


def _builder_of(
    name: str, shape: ClassifierOptions, options: dict[str, Any]
) -> Callable[[], nn.Module]:
    if name in TRANSFORMERS_MODELS:
        return lambda: TRANSFORMERS_MODELS[name](shape, **options)
    if name not in _OWN_MODELS:
        raise ValueError(f"model={name!r}; the names are {', '.join(model_names())}")
    network, record, fixed = _OWN_MODELS[name]
    facts = _facts_of(shape)
    known = {f.name for f in fields(record)} - {*facts, *fixed}
    for option in options:
        if option not in known:
            allowed = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise TypeError(f"{option} is no option of {name}; {allowed}")
    built = record(**facts, **fixed, **options)
    return lambda: network(built)


def _call_of(
    factory: ModelFactory, shape: ClassifierOptions, options: dict[str, Any]
) -> Callable[[], nn.Module]:
    facts = _facts_of(shape)
    parameters = inspect.signature(factory).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {name: value for name, value in facts.items() if takes_all or name in parameters}
    return lambda: factory(**named, **options)


def _facts_of(shape: ClassifierOptions) -> dict[str, Any]:
    return {f.name: getattr(shape, f.name) for f in fields(ClassifierOptions)}


@contextlib.contextmanager
def _weights_from(seed: int | torch.Generator | None) -> Iterator[None]:
    """Within the block, weights are drawn on the CPU from ``seed``."""
    if seed is None:
        yield
        return
    if isinstance(seed, torch.Generator):
        if seed.device.type != "cpu":
            raise ValueError(f"seed is a generator on {seed.device}; it must be on the CPU")
        value = int(torch.randint(1 << 62, (), generator=seed))
    else:
        value = as_seed("seed", seed)
    # Weights made elsewhere would come from a generator of that device, and be others.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(value)
        yield
