# SPDX-License-Identifier: Apache-2.0
"""The names of ``ddkern.latents``, which works without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ddkern.latents

ON_TORCH = ("AutoencoderCodec", "DitCodec", "StableDiffusionCodec")


@pytest.mark.parametrize("name", ddkern.latents.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    if name in ON_TORCH:
        pytest.importorskip("torch")
    value = getattr(ddkern.latents, name)
    assert name.isupper() or value.__name__ == name
    assert name in ddkern.latents.__doc__


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"'ddkern.latents' has no attribute 'DITCodec'"):
        _ = ddkern.latents.DITCodec


def test_without_torch() -> None:
    program = """
import sys
sys.modules["torch"] = None
import numpy as np
import ddkern, ddkern.latents
codec = ddkern.latents.IdentityCodec((1, 2, 2))
codec.decode(codec.encode(np.zeros((1, 1, 2, 2), np.uint8)), [0])
for use in (lambda: ddkern.latents.DitCodec, lambda: ddkern.latents.load_codec("owner/name")):
    try:
        use()
    except ddkern.UnsupportedError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "DitCodec needs the package torch" in done.stdout
    assert "a codec of diffusers needs the package torch" in done.stdout


def test_codecs_come_without_diffusers() -> None:
    pytest.importorskip("torch")
    program = """
import sys
import ddkern.latents
heavy = ("torch", "diffusers", "transformers", "safetensors", "PIL", "huggingface_hub")
assert not [name for name in heavy if name in sys.modules]
ddkern.latents.StableDiffusionCodec, ddkern.latents.DitCodec
assert not [name for name in heavy[1:] if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
