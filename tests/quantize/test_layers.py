"""Which width each node gets: names, what follows what, and what does not exist."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from espdl_hil.errors import QuantizeError
from espdl_hil.quantize.layers import choose_bits, share_bits
from espdl_hil.streaming.names import module_of

QUANTIZED = ("Conv", "Relu", "Add", "Sigmoid")


def chain(*names: str) -> Any:
    """A graph of nodes behind each other; the last part of a name is the operator."""
    nodes = [
        SimpleNamespace(
            name=name,
            type=name.rpartition("/")[2],
            inputs=[],
            outputs=[SimpleNamespace(dest_ops=[])],
        )
        for name in names
    ]
    for node, following in itertools.pairwise(nodes):
        node.outputs[0].dest_ops.append(following)
    return SimpleNamespace(operations={node.name: node for node in nodes})


GRAPH = chain(
    "/stem/Conv",
    "/blocks/blocks.1/point/Conv",
    "/blocks/blocks.1/act/Relu",
    "/blocks/blocks.1/Add",
    "/Sigmoid",
    "/Shape",
)


@pytest.mark.parametrize(
    ("name", "op_type", "parameters", "path"),
    [
        ("/stem/Conv", "Conv", ["stem.weight"], "stem"),
        ("/layers.0/filter/conv/Conv", "Conv", [], "layers.0.filter.conv"),
        ("/blocks/blocks.0/blocks.0.0/conv/Conv", "Conv", [], "blocks.0.0.conv"),
        ("/gate/gate.0/Conv/Swish", "Swish", [], "gate.0"),
        ("/Add", "Add", [], ""),
        ("Gemm_1", "Gemm", ["onnx::MatMul_83", "embed.bias"], "embed"),
        ("Reshape_0", "Reshape", ["_v_60"], ""),
    ],
)
def test_nodes_are_found_by_their_module(
    name: str, op_type: str, parameters: list[str], path: str
) -> None:
    assert module_of(name, op_type, parameters) == path


@pytest.mark.parametrize(
    ("layer_bits", "wide"),
    [
        ({}, set()),
        ({"stem": 16}, {"/stem/Conv"}),
        ({"/Sigmoid": 16}, {"/Sigmoid"}),
        ({"blocks.1": 16}, set(list(GRAPH.operations)[1:4])),
        ({"blocks": 16, "blocks.1.point": 8}, {"/blocks/blocks.1/Add"}),  # its Relu follows
        ({"blocks.1.act": 16}, set(list(GRAPH.operations)[1:3])),  # and it follows its Relu
        ({"stem": 8}, set()),
    ],
)
def test_the_longest_name_counts_and_an_activation_has_the_width_of_its_layer(
    layer_bits: dict[str, int], wide: set[str]
) -> None:
    assert choose_bits(GRAPH, 8, layer_bits, QUANTIZED) == dict.fromkeys(wide, 16)


@pytest.mark.parametrize("name", ["block", "blocks.1.poin", "/Shape", "Sigmoid"])
def test_a_name_that_fits_nothing_is_refused(name: str) -> None:
    with pytest.raises(QuantizeError) as caught:
        choose_bits(GRAPH, 8, {"stem": 16, name: 16}, QUANTIZED)
    assert caught.value.message.endswith(
        f"the network has no layer {name!r}; it has /Sigmoid, blocks.1, blocks.1.act, "
        "blocks.1.point, stem"
    )


def test_layers_that_share_a_state_have_one_width() -> None:
    chosen = {"first": 16}
    share_bits(chosen, [{"first", "second"}, {"other"}])
    assert chosen == {"first": 16, "second": 16}
