# SPDX-License-Identifier: Apache-2.0
"""What passes for a codec."""

from __future__ import annotations

from typing import Any

import pytest

from ddkern.latents import Codec, IdentityCodec, check_codec


def test_codecs_pass() -> None:
    codec = IdentityCodec((3, 2, 2))
    check_codec(codec)
    assert isinstance(codec, Codec)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("identity", "codec is a str; it must be a codec such as IdentityCodec"),
        (IdentityCodec, "codec is IdentityCodec; it must be a codec"),
        (None, "codec is a NoneType; it must be a codec"),
    ],
)
def test_other_things_do_not(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_codec(value)
