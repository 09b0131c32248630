# SPDX-License-Identifier: Apache-2.0
"""Teachers are trained once, and go on where they were interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from ddkern.data import Normalization  # noqa: E402
from ddkern.experts import load_teacher, teacher_recipe, train_teacher  # noqa: E402
from ddkern.training import Decay, Optimizer, Recipe  # noqa: E402
from helpers.students import make_task  # noqa: E402

TRAIN, TEST = make_task(90, seed=5, split="train"), make_task()
RECIPE = Recipe(
    epochs=4,
    batch_size=4,
    optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9),
    decay=Decay(kind="cosine"),
)


def teach(**changes):
    arguments = {
        "normalization": Normalization.fit(TRAIN),
        "model_options": {"width": 8, "norm": "none"},
        "recipe": RECIPE,
        "test": TEST,
        "precision": "float32",
    }
    return train_teacher(TRAIN, **(arguments | changes))


def same_weights(a, b) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_it_learns_and_says_how_well() -> None:
    teacher = teach()
    assert teacher.accuracy is not None
    assert teacher.accuracy > 0.8
    assert not teacher.model.training
    assert teach(test=None).accuracy is None


def test_the_same_conditions_are_trained_once(tmp_path: Path) -> None:
    reports = []
    first = teach(folder=tmp_path, progress=reports.append)
    assert [r.done for r in reports] == [1, 2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 1
    reports.clear()
    again = teach(folder=tmp_path, progress=reports.append)
    assert reports == []
    assert same_weights(first, again)
    assert (again.accuracy, again.conditions) == (first.accuracy, first.conditions)
    other = teach(folder=tmp_path, random_state=1)
    assert not same_weights(first, other)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    def stop(progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(folder=tmp_path, progress=stop)
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    reports = []
    parted = teach(folder=tmp_path, progress=reports.append)
    assert [r.done for r in reports] == [3, 4]
    assert same_weights(parted, teach())
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_a_file_is_read_by_its_path_alone(tmp_path: Path) -> None:
    teacher = teach(folder=tmp_path)
    (path,) = tmp_path.iterdir()
    assert same_weights(load_teacher(path, device="cpu"), teacher)


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not one of a teacher"):
        load_teacher(path)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_teacher(path)


def test_recipe_falls_after_half() -> None:
    recipe = teacher_recipe(200)
    assert [recipe.decay.at_epoch(e, 200) for e in (99, 100)] == [1.0, 0.1]
    assert teacher_recipe(10, augment=False).augment == ()
    assert replace(recipe, augment=()) == teacher_recipe(200, augment=False)
