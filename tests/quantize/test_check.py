"""The check that offline and streaming files are one calibrated network, and its twins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from espdl_hil.errors import QuantizeError
from espdl_hil.espdl import load_graph
from espdl_hil.quantize.check import check_same_calibration, check_state

if TYPE_CHECKING:
    from espdl_hil.espdl import Graph

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(name: str) -> Graph:
    with np.load(GOLDEN / f"{name}.esp32p4.int8.npz") as file:
        tensors = json.loads(file["index"].tobytes())["tensors"]
        return load_graph(
            next(file[key].tobytes() for key, path in tensors.items() if path == "model")
        )


@pytest.fixture(scope="module")
def offline() -> Graph:
    return golden("stream_residual.offline")


@pytest.fixture(scope="module")
def streaming() -> Graph:
    return golden("stream_residual.streaming")


def weight_of(graph: Graph) -> str:
    return next(node.inputs[1] for node in graph.nodes if node.op_type == "Conv")


def with_constant(graph: Graph, name: str, **changes: object) -> Graph:
    tensor = replace(graph.initializers[name], **changes)
    return replace(graph, initializers={**graph.initializers, name: tensor})


def test_files_of_one_calibration_pass(offline: Graph, streaming: Graph) -> None:
    assert any(node.op_type == "StreamingCache" for node in streaming.nodes)
    check_same_calibration(offline, streaming, 3)


def problem(offline: Graph, streaming: Graph) -> str:
    with pytest.raises(QuantizeError) as raised:
        check_same_calibration(offline, streaming, 3)
    assert raised.value.stage == "check"
    assert str(raised.value).startswith(
        "quantize (check): the streaming file for chunks of 3 frames is not the offline network: "
    )
    return str(raised.value)


def test_one_weight_bit_is_noticed(offline: Graph, streaming: Graph) -> None:
    name = weight_of(offline)
    raw = streaming.initializers[name].raw.copy()
    raw[-1] ^= 1
    other = with_constant(streaming, name, raw=raw)
    assert f"constant {name} has other values" in problem(offline, other)


def test_a_weight_exponent_is_noticed(offline: Graph, streaming: Graph) -> None:
    name = weight_of(offline)
    info = streaming.initializers[name].info
    other = with_constant(
        streaming, name, info=replace(info, exponents=tuple(e - 1 for e in info.exponents))
    )
    assert f"constant {name} was " in problem(offline, other)


def test_a_missing_weight_is_noticed(offline: Graph, streaming: Graph) -> None:
    name = weight_of(offline)
    left = {key: value for key, value in streaming.initializers.items() if key != name}
    assert f"constant {name} is missing" in problem(offline, replace(streaming, initializers=left))


def test_an_activation_exponent_is_noticed(offline: Graph, streaming: Graph) -> None:
    name = streaming.nodes[-1].inputs[0]
    info = streaming.value_info[name]
    infos = {**streaming.value_info, name: replace(info, exponents=(info.exponent + 1,))}
    assert f"tensor {name} was int8" in problem(offline, replace(streaming, value_info=infos))


def test_a_cache_that_rescales_is_noticed(offline: Graph, streaming: Graph) -> None:
    cache = next(node for node in streaming.nodes if node.op_type == "StreamingCache")
    name = cache.outputs[0]
    info = streaming.value_info[name]
    infos = {**streaming.value_info, name: replace(info, exponents=(info.exponent + 1,))}
    other = replace(streaming, value_info=infos)
    assert f"cache {cache.name} changes type or exponent" in problem(offline, other)


def test_many_differences_are_counted(offline: Graph, streaming: Graph) -> None:
    infos = {
        name: replace(info, exponents=(info.exponents[0] + 1,))
        for name, info in streaming.value_info.items()
    }
    assert "; and " in problem(offline, replace(streaming, value_info=infos))


def test_constants_that_say_where_may_be_edited() -> None:
    whole = golden("reshape")
    name = next(node.inputs[1] for node in whole.nodes if node.op_type == "Reshape")
    raw = whole.initializers[name].raw
    check_same_calibration(whole, with_constant(whole, name, raw=raw + 1), 3)


def test_a_state_that_fits_passes() -> None:
    check_state(golden("gru_hin"), {"hidden": "67"})


@pytest.mark.parametrize("change", [{"exponents": (-3,)}, {"shape": (1, 1, 99)}])
def test_a_state_that_does_not_fit_is_noticed(change: dict[str, tuple[int, ...]]) -> None:
    graph = golden("gru_hin")
    infos = {**graph.value_info, "67": replace(graph.value_info["67"], **change)}
    with pytest.raises(QuantizeError, match="cannot be fed back to input hidden"):
        check_state(replace(graph, value_info=infos), {"hidden": "67"})
