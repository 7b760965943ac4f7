"""The proof: each streaming chunk equals what the whole model gives, on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from espdl_hil import Hil


def test_streaming_equals_offline(hil: Hil) -> None:
    """Stream the stimulus and run it whole, both on the device: every element is the same."""
    assert hil.stream() == hil.offline()


def test_device_equals_interpreter(hil: Hil) -> None:
    """What the device gives, offline and chunk by chunk, is what the flashed bytes say."""
    assert hil.stream() == hil.interpreted()


def test_offline_equals_reference(hil: Hil) -> None:
    """The device's offline run is what the exporter's own quantized execution gives."""
    if not hil.has_reference:
        pytest.skip("the exporter's execution of files from elsewhere is not known")
    assert hil.offline() == hil.reference()


def test_offline_keeps_accuracy(hil: Hil) -> None:
    """The device's offline run does what the float model does, as well as the width can."""
    if not hil.has_float_model:
        pytest.skip("the float model of files from elsewhere is not known")
    assert hil.accuracy()
