"""Quantization settings: what they refuse, and that a model file can be told what they say."""

from __future__ import annotations

from typing import Any

import pytest

from espdl_hil import Quantization, StreamingModel
from espdl_hil.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"algorithm": "best"},
            "quantization: algorithm = 'best': expected one of kl, minmax, mse, percentile",
        ),
        ({"batches": 1}, "quantization: batches = 1: expected a whole number from 2 to 512"),
        ({"batches": True}, "batches = True: expected"),
        ({"equalization": "yes"}, "quantization: equalization is not True or False"),
        ({"layer_bits": ["conv"]}, "layer_bits is not a mapping from layer to bits"),
        ({"layer_bits": {3: 16}}, "layer_bits names 3, expected a layer"),
        ({"layer_bits": {"conv": 4}}, "layer_bits of 'conv' is 4: expected 8 or 16"),
        (
            {"layer_bits": {"conv": "w8a16"}},
            "layer_bits of 'conv' is 'w8a16': ESP-DL 3.3.9 has no kernels for 8-bit weights with "
            "16-bit activations write 16: weights and activations of the layer",
        ),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Quantization(**given)
    assert message in " ".join(str(caught.value).replace("hint: ", "").split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bits": ("w8a16",)}, "model 'm': an entry of bits is 'w8a16': ESP-DL 3.3.9 has no"),
        ({"quantization": "kl"}, "model 'm': quantization = 'kl': expected Quantization(...)"),
    ],
)
def test_what_a_model_refuses(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"model 'm': ") as caught:
        StreamingModel("m", print, (1, 4, 12), 2, (3,), **given)
    assert message in str(caught.value)


def test_it_is_written_as_a_model_file_has_it() -> None:
    given = Quantization(algorithm="mse", layer_bits={"a.b": 16}, bias_correction=True)
    assert str(given) == (
        "Quantization(algorithm='mse', layer_bits={'a.b': 16}, bias_correction=True)"
    )
    assert eval(str(given)) == given
    assert str(Quantization()) == "Quantization()"


def test_equal_settings_are_one() -> None:
    assert len({Quantization(layer_bits={"a": 16}), Quantization(layer_bits={"a": 16})}) == 1
    assert len({Quantization(layer_bits={"a": 16}), Quantization(layer_bits={"a": 8})}) == 2
