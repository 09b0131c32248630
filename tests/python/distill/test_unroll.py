# SPDX-License-Identifier: Apache-2.0
"""The gradient through steps of SGD is that of a stored graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from ddkern.augment import DSA, DrawKey  # noqa: E402
from ddkern.distill.unroll import Unroll  # noqa: E402
from ddkern.models import make_model  # noqa: E402
from reference.unrolled import stored_graph_distance  # noqa: E402

CLASSES, N = 3, 6


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 8 * 8, 7), nn.Tanh(), nn.Linear(7, 5), nn.ELU(), nn.Linear(5, 3)
    )


def convnet() -> nn.Module:
    return make_model("convnet-d3", n_classes=CLASSES, image_size=8, in_channels=3, width=4, seed=0)


def batch_norm() -> nn.Module:
    return make_model(
        "convnet-d3", n_classes=CLASSES, image_size=8, in_channels=3, width=4, norm="batch", seed=0
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "convnet": convnet,
    "batch norm": batch_norm,
}


class Problem:
    """A start, a target, a set and a learning rate that all require gradients."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float64, steps: int = 5) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = MODELS[name]().to(dtype)
        start = torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])
        self.start = start.clone().requires_grad_()
        away = torch.randn(len(start), generator=generator, dtype=dtype)
        self.target = start + 0.05 * away
        self.images = torch.randn(N, 3, 8, 8, generator=generator, dtype=dtype).requires_grad_()
        self.classes = torch.arange(N) % CLASSES
        logits = torch.randn(N, CLASSES, generator=generator, dtype=dtype)
        self.probabilities = logits.softmax(1).requires_grad_()
        self.lr = torch.tensor(0.05, dtype=dtype, requires_grad=True)
        orders = [torch.randperm(N, generator=generator) for _ in range(steps)]
        # Some batches are smaller, and one has a row twice.
        self.batches = [order[: 4 + step % 3] for step, order in enumerate(orders)]
        self.batches[2] = torch.tensor([1, 1, 3])

    def sources(self, labels: Tensor) -> list[Tensor]:
        return [t for t in (self.images, self.start, self.lr, labels) if t.requires_grad]

    def ours(self, labels: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
        unroll = Unroll(model=self.model, batches=self.batches, **options)
        loss = unroll.distance(self.start, self.target, self.images, labels, self.lr)
        return loss.detach(), list(torch.autograd.grad(loss, self.sources(labels)))

    def stored(self, labels: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
        loss = stored_graph_distance(
            self.model,
            self.batches,
            self.start,
            self.target,
            self.images,
            labels,
            self.lr,
            **options,
        )
        return loss.detach(), list(torch.autograd.grad(loss, self.sources(labels)))


def dsa(images: Tensor, step: int) -> Tensor:
    return DSA()(images, DrawKey(seed=3, iteration=7, step=step))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def assert_alike(found: Any, expected: Any, tolerance: float = 1e-9) -> None:
    assert relative(found[0], expected[0]) < tolerance
    assert len(found[1]) == len(expected[1]) >= 3
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert float(theirs.norm()) > 0, "nothing to compare"
        assert relative(ours, theirs) < tolerance


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("augment", [None, dsa], ids=["plain", "dsa"])
def test_gradients_are_those_of_a_stored_graph(name: str, momentum: float, augment: Any) -> None:
    problem = Problem(name)
    options = {"momentum": momentum, "augment": augment}
    for labels in (problem.classes, problem.probabilities):
        assert_alike(problem.ours(labels, **options), problem.stored(labels, **options))


@pytest.mark.parametrize("match", ["last", "nearest", "nearest_l1", (1, 4), (5,)])
@pytest.mark.parametrize("store_every", [1, 2, 3, 9])
def test_every_way_to_match_and_to_store(match: Any, store_every: int) -> None:
    problem = Problem("convnet")
    options = {"momentum": 0.5, "augment": dsa, "match": match}
    found = problem.ours(problem.probabilities, store_every=store_every, **options)
    assert_alike(found, problem.stored(problem.probabilities, **options))


def test_the_nearest_step_may_be_one_in_between() -> None:
    problem = Problem("convnet")
    short = Unroll(model=problem.model, batches=problem.batches[:3])
    middle = short.parameters_after(problem.start, problem.images, problem.classes, problem.lr)
    problem.target = middle + 1e-5 * torch.randn_like(middle)
    found = problem.ours(problem.classes, match="nearest")
    assert_alike(found, problem.stored(problem.classes, match="nearest"))
    assert float(found[0]) < 0.1 * float(problem.ours(problem.classes)[0])
    problem.batches = problem.batches[:3]
    assert_alike(found, problem.stored(problem.classes))


def test_nearest_by_squares_and_by_absolute_differences() -> None:
    """A few large differences from one step, many small ones from another."""
    problem = Problem("convnet")
    one, three = (
        Unroll(model=problem.model, batches=problem.batches[:steps]).parameters_after(
            problem.start, problem.images, problem.classes, problem.lr
        )
        for steps in (1, 3)
    )
    away = (three - one).abs()
    order = away.argsort(descending=True)
    squares = away[order].square().cumsum(0)
    few = order[: int((squares < 0.6 * squares[-1]).sum()) + 1]
    assert away[few].sum() < 0.4 * away.sum()
    problem.target = one.clone()
    problem.target[few] = three[few]
    for match, steps in (("nearest", 3), ("nearest_l1", 1)):
        found = problem.ours(problem.classes, match=match)
        assert_alike(found, problem.stored(problem.classes, match=match))
        assert_alike(found, problem.stored(problem.classes, match=(steps,)))


@pytest.mark.parametrize("match", ["nearest", "nearest_l1"])
def test_of_equally_near_steps_the_last_one_counts(match: str) -> None:
    problem = Problem("linear")
    problem.lr = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    # At a rate of 0 all steps end where they began; the derivative by it adds up over all of them.
    found, last, first = (problem.ours(problem.classes, match=m)[1][2] for m in (match, (5,), (1,)))
    assert torch.equal(found, last)
    assert not torch.equal(found, first)


def test_nearest_passes_over_steps_that_diverge() -> None:
    problem = Problem("linear")
    with torch.no_grad():
        problem.lr.fill_(1e200)
    unroll = Unroll(model=problem.model, batches=problem.batches, match="nearest")
    with pytest.raises(ValueError, match=r"lr=1e\+200; the steps diverge"):
        unroll.distance(problem.start, problem.target, problem.images, problem.classes, problem.lr)
    last = Unroll(model=problem.model, batches=problem.batches).distance(
        problem.start, problem.target, problem.images, problem.classes, problem.lr
    )
    assert not torch.isfinite(last)


@pytest.mark.parametrize("gradient", ["tesla", "truncated:1", "truncated:3", "truncated:5"])
def test_biased_gradients_are_those_of_a_graph_that_is_cut(gradient: str) -> None:
    problem = Problem("convnet")
    problem.start.requires_grad_(gradient == "tesla")
    options = {"augment": dsa, "gradient": gradient, "momentum": 0.3}
    found = problem.ours(problem.probabilities, **options)
    assert_alike(found, problem.stored(problem.probabilities, **options))
    exact = problem.ours(problem.probabilities, augment=dsa, momentum=0.3)
    is_exact = gradient == "truncated:5"
    assert (relative(found[1][0], exact[1][0]) < 1e-12) == is_exact


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 100])
def test_parts_of_a_batch_add_up(micro_batch: int) -> None:
    problem = Problem("convnet")
    whole = problem.ours(problem.probabilities, augment=dsa, momentum=0.5)
    parts = problem.ours(problem.probabilities, augment=dsa, momentum=0.5, micro_batch=micro_batch)
    assert_alike(parts, whole)


def test_finite_differences() -> None:
    problem = Problem("mlp", steps=3)
    unroll = Unroll(model=problem.model, batches=problem.batches, momentum=0.5, augment=dsa)

    def distance(images: Tensor, labels: Tensor, lr: Tensor, start: Tensor) -> Tensor:
        return unroll.distance(start, problem.target, images, labels, lr)

    sources = (problem.images, problem.probabilities, problem.lr, problem.start)
    assert torch.autograd.gradcheck(distance, sources, eps=1e-6, atol=1e-7, fast_mode=True)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_float32_is_as_good_as_a_stored_graph(name: str) -> None:
    exact, single = Problem(name), Problem(name, torch.float32)
    with torch.no_grad():
        for source in ("images", "start", "probabilities", "lr"):
            getattr(exact, source).copy_(getattr(single, source))
    exact.target = single.target.double()
    truth = exact.stored(exact.probabilities, momentum=0.5)
    ours = single.ours(single.probabilities, momentum=0.5)
    stored = single.stored(single.probabilities, momentum=0.5)
    for mine, theirs, expected in zip(ours[1], stored[1], truth[1], strict=True):
        assert mine.dtype == torch.float32
        assert relative(mine.double(), expected) <= 2 * relative(theirs.double(), expected) + 1e-7


def test_what_is_upstream_and_downstream_is_differentiated_too() -> None:
    problem = Problem("convnet")
    problem.start.requires_grad_(False)
    factors = torch.rand(N, 3, 8, 2, dtype=torch.float64, requires_grad=True)
    other = torch.rand(N, 3, 2, 8, dtype=torch.float64)
    unroll = Unroll(model=problem.model, batches=problem.batches)
    loss = unroll.distance(
        problem.start, problem.target, factors @ other, problem.classes, problem.lr
    )
    (3 * loss).square().backward()
    expected = stored_graph_distance(
        problem.model,
        problem.batches,
        problem.start,
        problem.target,
        factors @ other,
        problem.classes,
        problem.lr,
    )
    (wanted,) = torch.autograd.grad((3 * expected).square(), factors)
    assert relative(factors.grad, wanted) < 1e-9


def test_nothing_of_the_module_is_changed() -> None:
    problem = Problem("batch norm")
    problem.model.eval()
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    problem.ours(problem.classes)
    assert not problem.model.training
    for name, value in problem.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bfloat16_is_near() -> None:
    problem = Problem("convnet", torch.float32)
    exact = problem.ours(problem.probabilities)
    found = problem.ours(problem.probabilities, precision="bfloat16")
    assert found[1][0].dtype == torch.float32
    assert 1e-6 < relative(found[1][0], exact[1][0]) < 0.2


def test_a_second_derivative_is_refused() -> None:
    problem = Problem("linear")
    unroll = Unroll(model=problem.model, batches=problem.batches)
    loss = unroll.distance(
        problem.start, problem.target, problem.images, problem.classes, problem.lr
    )
    (gradient,) = torch.autograd.grad(loss, problem.images, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


ROWS = [torch.tensor([0, 1])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "model is a int; it must be a torch.nn.Module"),
        ({"model": nn.ReLU()}, "model has no parameters"),
        ({"model": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))}, "'1', which drops out"),
        ({"model": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())}, "of 2 dtypes"),
        ({"batches": []}, "batches is empty"),
        ({"batches": [torch.zeros(2)]}, r"batches\[0\] must be a tensor of int64"),
        ({"batches": [ROWS[0], ROWS[0][:0]]}, r"batches\[1\] has shape \(0,\)"),
        ({"momentum": 1.5}, "momentum=1.5"),
        ({"match": "best"}, "match='best'; it must be one of 'last', 'nearest'"),
        ({"match": (1, 1)}, r"match=\(1, 1\); it must hold"),
        ({"match": ()}, r"match=\(\); it must hold"),
        ({"match": (2,)}, "match=2; it must be an integer of at least 1 and at most 1"),
        ({"gradient": "truncated"}, "gradient='truncated'; it must be 'exact', 'tesla' or"),
        ({"gradient": "truncated:0"}, "gradient='truncated:0'"),
        ({"gradient": 3}, "gradient=3"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"store_every": 0}, "store_every=0"),
        ({"precision": "half"}, "precision='half'"),
    ],
)
def test_wrong_fields(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Unroll(**({"model": linear(), "batches": ROWS} | options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": torch.zeros(3)}, r"start has shape \(3,\); it must be \(579,\)"),
        ({"target": [1.0]}, "target must be a tensor of floating point"),
        ({"target": torch.zeros(579)}, "start is torch.float64 on cpu, target torch.float32"),
        ({"target": "start"}, "start equals target; the distance between them must not be 0"),
        ({"target": torch.full((579,), torch.nan).double()}, "start or target holds NaN or infin"),
        ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.int64)}, "images must be a tensor of fl"),
        ({"images": torch.zeros(5, 3, 8, 8).double()}, r"labels has shape \(6,\).*must be \(5,\)"),
        ({"labels": torch.zeros(6)}, r"labels has shape \(6,\) and dtype torch.float32"),
        ({"labels": [0] * 6}, "labels must be a tensor of int64 or of floating point"),
        ({"lr": torch.zeros(2)}, r"lr has shape \(2,\); it must be a single number"),
        ({"batches": [torch.tensor([0, 6])]}, r"batches\[0\] has rows from 0 to 6; .*\[0, 6\)"),
        ({"gradient": "truncated:1"}, "gradient='truncated:1' does not come back to start"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    problem = Problem("linear")
    options = {name: changes.pop(name) for name in ("batches", "gradient") if name in changes}
    unroll = Unroll(**({"model": problem.model, "batches": problem.batches} | options))
    arguments = {
        "start": problem.start,
        "target": problem.target,
        "images": problem.images,
        "labels": problem.classes,
        "lr": problem.lr,
    } | changes
    if isinstance(arguments["target"], str):
        arguments["target"] = problem.start.detach().clone()
    with pytest.raises((TypeError, ValueError), match=message):
        unroll.distance(**arguments)
