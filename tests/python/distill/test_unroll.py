# SPDX-License-Identifier: Apache-2.0
"""The gradient through steps of SGD is that of a stored graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from ddkern.augment import DSA, DrawKey  # noqa: E402
from ddkern.distill import compiled_steps  # noqa: E402
from ddkern.distill.unroll import Unroll  # noqa: E402
from ddkern.models import FlatNetwork, accelerate, make_model  # noqa: E402
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
    # Not nearer: the difference of two vectors keeps few digits of either.
    problem.target = middle + 1e-4 * torch.randn_like(middle)
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


class Several(Problem):
    """Three starts, each with a target near to where its own number of steps ends."""

    ENDS = (5, 2, 4)

    def __init__(
        self, name: str, dtype: torch.dtype = torch.float64, lr: Any = 0.05, **options: Any
    ) -> None:
        super().__init__(name, dtype)
        generator = torch.Generator().manual_seed(2)
        away = torch.randn(3, len(self.start), generator=generator, dtype=dtype)
        self.start = (self.start.detach() + 0.02 * away).requires_grad_()
        self.lr = torch.tensor(lr, dtype=dtype, requires_grad=True)
        self.weights = torch.tensor([0.5, -2.0, 1.5], dtype=dtype)
        ends = [
            Unroll(model=self.model, batches=self.batches[:steps], **options).parameters_after(
                self.start[student], self.images, self.probabilities, self.rate_of(student)
            )
            for student, steps in enumerate(self.ENDS)
        ]
        self.target = torch.stack(ends) + 1e-3 * away.flip(0)

    def rate_of(self, student: int) -> Tensor:
        return self.lr[student] if self.lr.dim() else self.lr

    def together(self, labels: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
        unroll = Unroll(model=self.model, batches=self.batches, **options)
        loss = unroll.distance(self.start, self.target, self.images, labels, self.lr)
        gradients = torch.autograd.grad(loss, self.sources(labels), self.weights)
        return loss.detach(), list(gradients)

    def one_by_one(self, labels: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
        """With ``match="ends"`` each of the ends that the targets are near to."""
        found = []
        for student, steps in enumerate(self.ENDS):
            own = {"match": (steps,)} if options.get("match") == "ends" else {}
            unroll = Unroll(model=self.model, batches=self.batches, **(options | own))
            arguments = (self.start[student], self.target[student], self.images, labels)
            found.append(unroll.distance(*arguments, self.rate_of(student)))
        loss = torch.stack(found)
        gradients = torch.autograd.grad(loss, self.sources(labels), self.weights)
        return loss.detach(), list(gradients)

    def stored_one_by_one(self, labels: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
        found = [
            stored_graph_distance(
                self.model, self.batches, start, target, self.images, labels, self.lr, **options
            )
            for start, target in zip(self.start, self.target, strict=True)
        ]
        loss = torch.stack(found)
        gradients = torch.autograd.grad(loss, self.sources(labels), self.weights)
        return loss.detach(), list(gradients)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_students_are_those_of_a_stored_graph_each(name: str) -> None:
    problem = Several(name)
    options = {"momentum": 0.7, "augment": dsa}
    expected = problem.stored_one_by_one(problem.classes, **options)
    # Two of them together, and one alone.
    found = problem.together(problem.classes, at_once=2, **options)
    assert found[0].shape == (3,)
    assert_alike(found, expected)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize("match", ["nearest", "nearest_l1"])
def test_each_student_has_a_nearest_step_of_its_own(name: str, match: str) -> None:
    options = {"momentum": 0.5, "augment": dsa}
    problem = Several(name, **options)
    expected = problem.one_by_one(problem.probabilities, match="ends", **options)
    for more in ({}, {"store_every": 3, "micro_batch": 2}):
        found = problem.together(problem.probabilities, match=match, at_once=3, **more, **options)
        assert_alike(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"match": (1, 4), "store_every": 2},
        {"gradient": "tesla", "match": "nearest"},
        {"gradient": "truncated:2", "match": "nearest"},
        {"gradient": "truncated:3", "match": "last", "at_once": 2},
        {"lr": [0.05, 0.02, 0.03], "momentum": 0.3},
        {"lr": [0.05, 0.02, 0.03], "momentum": 0.3, "match": "nearest", "at_once": 2},
    ],
    ids=str,
)
def test_students_at_once_with_all_options(options: dict[str, Any]) -> None:
    lr = {"lr": options.pop("lr")} if "lr" in options else {}
    problem = Several("convnet", **lr, momentum=options.get("momentum", 0.0))
    problem.start.requires_grad_("truncated" not in options.get("gradient", ""))
    expected = problem.one_by_one(problem.probabilities, **(options | {"at_once": 1}))
    found = problem.together(problem.probabilities, **({"at_once": 3} | options))
    assert_alike(found, expected)


def test_students_in_float32_and_with_fused_layers() -> None:
    problem = Several("convnet", torch.float32)
    plain = problem.together(problem.classes)
    assert_alike(problem.together(problem.classes, at_once=3), plain, 0.02)
    accelerate(problem.model)
    assert_alike(problem.together(problem.classes, at_once=3), plain, 0.02)
    assert problem.model.features.fused
    smooth = Several("mlp", torch.float32)
    assert_alike(
        smooth.together(smooth.classes, at_once=3), smooth.one_by_one(smooth.classes), 1e-4
    )


def test_a_student_that_diverges_is_named_or_left_out() -> None:
    problem = Several("convnet")
    rates = torch.tensor([0.05, 1e200, 0.05], dtype=torch.float64)
    shared = {"model": problem.model, "batches": problem.batches, "at_once": 3}
    arguments = (problem.start, problem.target, problem.images, problem.classes, rates)
    with pytest.raises(ValueError, match=r"lr=1e\+200; the steps from start\[1\] diverge"):
        Unroll(match="nearest", **shared).distance(*arguments)
    distances = Unroll(**shared).distance(*arguments)
    assert torch.isfinite(distances).tolist() == [True, False, True]
    (found,) = torch.autograd.grad(distances[[0, 2]].sum(), problem.images)
    problem.weights = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    assert relative(found, problem.one_by_one(problem.classes)[1][0]) < 1e-9


def test_what_comes_after_the_nearest_step_of_a_student_may_be_nan() -> None:
    """The second one's parameters are 1e80, 1e160, 1e240, infinity: only the first is a match."""
    problem = Several("linear", lr=[0.05, 1e80, 0.05])
    problem.weights[1] = 1e-160
    options = {"match": "nearest", "loss": lambda logits, labels: logits.square().mean()}
    problem.target[1] = problem.start[1].detach() + 1
    expected = problem.one_by_one(problem.classes, **options)
    assert_alike(problem.together(problem.classes, at_once=3, **options), expected)


def test_where_the_steps_of_students_end() -> None:
    problem = Several("mlp")
    for at_once in (1, 3):
        unroll = Unroll(model=problem.model, batches=problem.batches, at_once=at_once)
        arguments = (problem.images, problem.classes, problem.lr)
        found = unroll.parameters_after(problem.start, *arguments)
        for start, end in zip(problem.start, found, strict=True):
            assert relative(end, unroll.parameters_after(start, *arguments)) < 1e-12


@pytest.mark.slow
def test_compiled_steps_are_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as by torch.compile, without the C++ compiler, which takes minutes."""
    monkeypatch.setattr(compiled_steps, "_BACKEND", "eager")
    problem = Problem("batch norm", steps=3)
    problem.batches = [torch.tensor(rows) for rows in ([0, 1, 2, 5], [3, 4], [1, 1, 0, 2])]
    network = FlatNetwork(problem.model)
    kept = []
    for labels, options in (
        (problem.probabilities, {"momentum": 0.3, "augment": dsa}),
        (problem.probabilities, {"match": "nearest", "store_every": 2}),
    ):
        expected = problem.ours(labels, **options)
        problem.model, plain = network, problem.model
        assert_alike(problem.ours(labels, compiled=True, **options), expected)
        problem.model = plain
        kept.append(list(network.kept.values()))
    assert kept[0] == kept[1], "compilations last as long as the network"
    assert len(kept[0]) == 1


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
        ({"at_once": 0}, "at_once=0"),
        ({"at_once": 2, "compiled": True}, "at_once=2 with compiled=True; it must be 1"),
        ({"precision": "half"}, "precision='half'"),
    ],
)
def test_wrong_fields(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Unroll(**({"model": linear(), "batches": ROWS} | options))


SEVERAL = {"start": torch.zeros(2, 579), "target": torch.tensor([[1.0], [0.0]]).expand(2, 579)}


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
        ({"lr": torch.zeros(2)}, r"lr has shape \(2,\); it must be a single number$"),
        ({"start": torch.zeros(0, 579)}, r"start has shape \(0, 579\); .* or \(n_starts, 579\)"),
        (
            {"start": torch.zeros(2, 579).double()},
            r"target has shape .*must be \(2, 579\), as start",
        ),
        (SEVERAL | {"lr": torch.zeros(3)}, r"lr has shape \(3,\); .* number, or \(2,\), one for"),
        (SEVERAL, r"start\[1\] equals target\[1\]; the distance between them must not be 0"),
        (SEVERAL | {"target": torch.full((2, 579), torch.nan)}, r"start\[0\] or target\[0\] holds"),
        ({"batches": [torch.tensor([0, 6])]}, r"batches\[0\] has rows from 0 to 6; .*\[0, 6\)"),
        ({"gradient": "truncated:1"}, "gradient='truncated:1' does not come back to start"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    problem = Problem("linear")
    options = {name: changes[name] for name in ("batches", "gradient") if name in changes}
    changes = {name: value for name, value in changes.items() if name not in options}
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
