# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from ddkern import UnsupportedError
from ddkern.optional import import_optional


def test_present_package() -> None:
    assert import_optional("json", "this", "data") is json


def test_absent_package() -> None:
    message = r"reading clay needs the package tablets \(pip install 'ddkern\[data\]'\)"
    with pytest.raises(UnsupportedError, match=message):
        import_optional("tablets.clay", "reading clay", "data")
