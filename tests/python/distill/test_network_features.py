# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ddkern.data import ImageDataset, Normalization  # noqa: E402
from ddkern.distill import Herding, NetworkFeatures, distill  # noqa: E402
from ddkern.distill.features import features_of_class  # noqa: E402
from ddkern.models import make_model  # noqa: E402
from helpers.coresets import assert_coreset, make_dataset  # noqa: E402

DATASET = make_dataset((7, 1, 12), (3, 16, 16))
NORM = Normalization.fit(DATASET)


def _network(norm: str = "batch") -> torch.nn.Module:
    return make_model("convnet-d3", n_classes=3, image_size=16, seed=0, width=8, norm=norm)


def _features(space: NetworkFeatures, dataset: ImageDataset, label: int) -> np.ndarray:
    with space.opened(dataset, NORM) as embed:
        return features_of_class(dataset, NORM, embed, label)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 256])
def test_features_are_those_of_the_network(batch_size: int) -> None:
    net = _network().eval()
    space = NetworkFeatures(model=net, batch_size=batch_size)
    for label in range(3):
        images = DATASET.images(DATASET.rows_of_class(label))
        with torch.no_grad():
            expected = net.embed(torch.tensor(NORM.apply(images))).numpy()
        found = _features(space, DATASET, label)
        assert found.dtype == np.float32
        assert found.shape == (len(images), 8 * 2 * 2)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_batches_are_no_larger_than_asked_and_channels_last() -> None:
    seen = []

    class Net(torch.nn.Module):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            assert torch.is_inference_mode_enabled()
            assert images.is_contiguous(memory_format=torch.channels_last)
            seen.append(len(images))
            return images.flatten(1)

    found = _features(NetworkFeatures(model=Net(), batch_size=5), DATASET, 2)
    assert seen == [5, 5, 2]
    images = DATASET.images(DATASET.rows_of_class(2))
    np.testing.assert_array_equal(found, NORM.apply(images).reshape(12, -1))


@pytest.mark.parametrize("training", [True, False])
def test_network_is_left_as_it_was(training: bool) -> None:
    net = _network()
    net.train(training)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    norms[1].train(not training)  # a frozen layer, as in fine-tuning
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    distill(DATASET, Herding(ipc=1, features=NetworkFeatures(model=net)), random_state=0)
    assert [module.training for module in net.modules()] == modes
    assert len(before) > 0
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert not value.is_inference()


def test_network_is_in_evaluation_mode_meanwhile() -> None:
    net = _network()
    by_net = _features(NetworkFeatures(model=net), DATASET, 0)
    images = DATASET.images(DATASET.rows_of_class(0))
    with torch.no_grad():
        in_training = net.embed(torch.tensor(NORM.apply(images))).numpy()
    assert not np.allclose(by_net, in_training, rtol=1e-2, atol=1e-2)


def test_modes_return_after_an_error() -> None:
    net = _network()

    def interrupt(images: torch.Tensor) -> torch.Tensor:
        assert not any(module.training for module in net.modules())
        raise KeyboardInterrupt

    net.embed = interrupt
    with pytest.raises(KeyboardInterrupt):
        _features(NetworkFeatures(model=net), DATASET, 0)
    assert all(module.training for module in net.modules())


def test_half_precision_features_become_float32() -> None:
    class Net(torch.nn.Module):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1).bfloat16()

    images = torch.tensor(NORM.apply(DATASET.images(DATASET.rows_of_class(1))))
    found = _features(NetworkFeatures(model=Net()), DATASET, 1)
    np.testing.assert_array_equal(found, images.flatten(1).bfloat16().float().numpy())


def test_herding_in_the_space_of_a_network() -> None:
    space = NetworkFeatures(model=_network("instance"), batch_size=4)
    dataset = make_dataset((7, 5, 12), (3, 16, 16))
    made = distill(dataset, Herding(ipc=3, features=space), normalization=NORM, random_state=0)
    assert_coreset(made, dataset, 3)
    for label in range(3):
        x = _features(space, dataset, label).astype(np.float64)
        rows = np.array(made.provenance.options["rows"])[made.labels == label]
        first = np.searchsorted(dataset.rows_of_class(label), rows[0])
        assert first == np.argmin(np.linalg.norm(x - x.mean(axis=0), axis=1))


def test_options_tell_networks_apart() -> None:
    net = _network()
    options = NetworkFeatures(model=net, batch_size=9).options()
    assert options["weights"].startswith("sha256:")
    assert options == {
        "model": "ConvNet",
        "weights": options["weights"],
        "batch_size": 9,
        "device": None,
    }
    same = NetworkFeatures(model=_network(), device="cpu").options()
    assert same["weights"] == options["weights"]
    assert same["device"] == "cpu"
    with torch.no_grad():
        next(net.parameters())[0, 0, 0, 0] += 1
    assert NetworkFeatures(model=net).options()["weights"] != options["weights"]


def test_weights_of_any_type_have_a_digest() -> None:
    weights = {
        NetworkFeatures(model=_network().to(dtype)).options()["weights"]
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    }
    assert len(weights) == 3


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="model is a str; it must be an nn.Module"):
        NetworkFeatures(model="convnet-d3")
    with pytest.raises(ValueError, match="batch_size=0; it must be an integer of at least 1"):
        NetworkFeatures(model=_network(), batch_size=0)
    with pytest.raises(ValueError, match="device='gpu'; torch says"):
        NetworkFeatures(model=_network(), device="gpu")
    with pytest.raises(TypeError, match=r"model is a Linear without a method embed\(images\)"):
        _features(NetworkFeatures(model=torch.nn.Linear(3, 3)), DATASET, 0)


def test_model_on_several_devices() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta"))
    space = NetworkFeatures(model=net, device="cpu")
    with (
        pytest.raises(ValueError, match="device='cpu', but the model lies on cpu, meta; device"),
        space.opened(DATASET, NORM),
    ):
        pass
    assert net[1].weight.device.type == "meta"
