# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from ddkern.arrays import device_of, to_host

SUPPORTED = ["?", "b", "B", "h", "H", "i", "I", "q", "Q", "e", "f", "d"]


class DlpackOnly:
    """An array that offers DLPack and nothing else."""

    def __init__(self, values: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.values = values
        self.device = device

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


class Standard(DlpackOnly):
    """An array of a library that follows the array API standard."""

    def __array_namespace__(self) -> type[StandardNamespace]:
        return StandardNamespace


class StandardNamespace:
    @staticmethod
    def from_dlpack(x: Any) -> Standard:
        return Standard(np.from_dlpack(x))


@pytest.mark.parametrize("code", SUPPORTED)
def test_numpy_is_seen_in_place(code: str) -> None:
    x = np.ones((3, 4), code)
    host = to_host(x, "x")
    assert np.shares_memory(host.values, x)
    assert host.values.dtype == x.dtype
    assert not host.bfloat16
    assert host.wrap(x) is x


@pytest.mark.parametrize(
    ("code", "expected"),
    [(code, "float64" if code in "iIqQd" else "float32") for code in SUPPORTED],
)
def test_point_dtype_holds_every_value(code: str, expected: str) -> None:
    assert to_host(np.zeros(2, code), "x").point_dtype == expected


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::-1, ::2],
        lambda a: a[:, ::-1],
        np.asfortranarray,
        lambda a: np.broadcast_to(a[:1], (5, 8)),
    ],
    ids=["transposed", "negative rows", "negative columns", "fortran", "broadcast"],
)
def test_views_are_not_copied(view: Any) -> None:
    x = view(np.arange(48, dtype=np.float32).reshape(6, 8))
    host = to_host(x, "x")
    assert host.values.strides == x.strides
    assert np.shares_memory(host.values, x)


def test_memory_map_is_not_read(tmp_path: Any) -> None:
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4, 3))
    host = to_host(x, "x")
    assert type(host.values) is np.ndarray
    assert np.shares_memory(host.values, x)


def test_lists() -> None:
    host = to_host([[1, 2], [3, 4]], "x")
    assert host.values.tolist() == [[1, 2], [3, 4]]


def test_dlpack_alone_comes_back_as_numpy() -> None:
    x = np.arange(6.0).reshape(2, 3)
    host = to_host(DlpackOnly(x), "x")
    assert np.shares_memory(host.values, x)
    assert isinstance(host.wrap(x), np.ndarray)


def test_array_api_library_gets_its_own_arrays_back() -> None:
    x = np.arange(6.0).reshape(2, 3)
    host = to_host(Standard(x), "x")
    assert np.shares_memory(host.values, x)
    result = np.zeros(3)
    back = host.wrap(result)
    assert isinstance(back, Standard)
    assert np.shares_memory(back.values, result)


def test_array_api_library_without_from_dlpack() -> None:
    class Namespace:
        asarray = staticmethod(Standard)

    class Older(DlpackOnly):
        def __array_namespace__(self) -> type[Namespace]:
            return Namespace

    assert isinstance(to_host(Older(np.zeros(2)), "x").wrap(np.zeros(2)), Standard)


def test_failing_dlpack_falls_back_on_the_array_protocol() -> None:
    class Refusing(DlpackOnly):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("read-only")

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return self.values

    x = np.arange(6.0)
    assert np.shares_memory(to_host(Refusing(x), "x").values, x)


def test_failing_dlpack_without_a_way_out() -> None:
    class Refusing(DlpackOnly):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("no such dtype")

    with pytest.raises(TypeError, match="points, a Refusing, cannot be exchanged.*no such dtype"):
        to_host(Refusing(np.zeros(2)), "points")


@pytest.mark.parametrize(
    ("device", "in_words"),
    [((2, 1), "cuda:1"), ((13, 0), "cuda:0"), ((7, 0), r"DLPack device \(7, 0\)")],
)
def test_dlpack_device(device: tuple[int, int], in_words: str) -> None:
    with pytest.raises(TypeError, match=rf"x lies on {in_words}, .*x.cpu\(\)"):
        to_host(DlpackOnly(np.zeros(2), device=device), "x")


def test_device_of() -> None:
    class Interface:
        __cuda_array_interface__: ClassVar[dict[str, Any]] = {}

    x = np.zeros(2)
    assert [device_of(value) for value in (x, [1, 2], 3.0, None, DlpackOnly(x))] == [None] * 5
    assert device_of(DlpackOnly(x, device=(3, 0))) is None
    assert device_of(DlpackOnly(x, device=(2, 3))) == "cuda:3"
    assert device_of(Interface()) == "cuda"


def test_argument_beside_an_array_on_the_host() -> None:
    host = to_host(np.zeros(2), "x")
    assert host.beside([1, 2], "init").values.tolist() == [1, 2]
    with pytest.raises(TypeError, match="init lies on cuda:0 and x in CPU memory; pass init.cpu"):
        host.beside(DlpackOnly(np.zeros(2), device=(2, 0)), "init")


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.zeros(2, complex), "complex128"),
        (np.zeros(2, object), "object"),
        (np.array(["a"]), "str"),
        (np.zeros(2, "datetime64[s]"), "datetime64"),
        (np.zeros(2, np.longdouble), "longdouble|float128"),
        ([None, 1], "object"),
    ],
)
def test_unsupported_dtype(value: Any, dtype: str) -> None:
    with pytest.raises(TypeError, match=f"points has dtype ({dtype}).*supported are"):
        to_host(value, "points")


def test_foreign_byte_order() -> None:
    dtype = np.dtype(np.float32).newbyteorder("S")
    with pytest.raises(TypeError, match="x has dtype .*not in this machine's byte order"):
        to_host(np.zeros(2, dtype), "x")


def test_masked_array() -> None:
    with pytest.raises(TypeError, match="x is a masked array"):
        to_host(np.ma.masked_invalid([1.0, np.nan]), "x")


def test_ragged_list() -> None:
    with pytest.raises(ValueError, match="x does not form an array"):
        to_host([[1, 2], [3]], "x")


def test_sparse_matrix() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="x is sparse"):
        to_host(sparse.csr_matrix((2, 2)), "x")


def test_as_dtype_is_contiguous_and_exact() -> None:
    host = to_host(np.arange(12, dtype=np.int16).reshape(3, 4)[:, ::-2], "x")
    values = host.as_dtype(np.float32)
    assert values.flags.c_contiguous
    assert values.tolist() == [[3, 1], [7, 5], [11, 9]]


def test_as_dtype_beyond_range_is_infinite() -> None:
    assert np.isinf(to_host(np.array([1e300]), "x").as_dtype(np.float32)).all()


def test_numpy_bfloat16_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    host = to_host(np.array([1.5, -2.0], ml_dtypes.bfloat16), "x")
    assert host.bfloat16
    assert host.as_dtype(np.float32).tolist() == [1.5, -2.0]
