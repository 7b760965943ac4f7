"""The graph check as a whole: golden files pass, every offending node is named at once."""

import numpy as np
import pytest

from espdl_hil.errors import ConfigError, UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.espdl.graph import Node
from espdl_hil.operators import OPERATORS, check_graph


def test_every_golden_file_passes(golden, golden_names):
    for name in golden_names:
        data, index, _ = golden(name)
        check_graph(load_graph(data), index["target"])


def act(*shape, e=-4):
    return ("int8", shape, e)


def zeros(*shape, dtype="int8"):
    return (np.zeros(shape, dtype), -7)


def test_every_offending_node_is_named_at_once(build_graph):
    nodes = [
        Node("a", "Erf", ("x",), ("p",), {"quant_type": "S8"}),
        Node("b", "Relu", ("p",), ("q",), {"quant_type": "S4"}),
        Node("c", "Add", ("x", "z"), ("r",), {"quant_type": "S8"}),
        Node("d", "Relu", ("x",), ("s",), {"quant_type": "S8"}),
    ]
    tensors = dict.fromkeys("xpqrs", act(1, 4)) | {"z": act(1, 4, e=-5)}
    with pytest.raises(UnsupportedOpError) as caught:
        check_graph(build_graph(nodes, tensors), "esp32p4")
    names = ", ".join(sorted(OPERATORS))
    assert str(caught.value) == (
        "built: ESP-DL cannot run 3 nodes of this graph:\n"
        "  Erf 'a': there is no such operator\n"
        "  Relu 'b': quant_type 'S4'\n"
        "  Add 'c': its tensors have different exponents ('x': -4, 'z': -5, 'r': -4); the chip "
        "ignores them and takes the integers as they are\n"
        "  hint: supported: Add: int8, int16, float32; up to 4 dimensions once axes that "
        "broadcast alike are merged; one exponent\n"
        "    Relu: int8, int16, float32; a look-up table for int8, or computed in float\n"
        f"    operators of ESP-DL 3.3: {names}"
    )


def test_a_bias_that_two_nodes_share_on_the_s3(build_graph):
    attributes = {"quant_type": "S8"}
    nodes = [
        Node("a", "Gemm", ("x", "v", "b"), ("p",), attributes),
        Node("c", "Gemm", ("p", "w", "b"), ("q",), attributes),
    ]
    tensors = {name: act(1, 16) for name in "xpq"}
    tensors |= {name: zeros(1, 1, 16, 16) for name in "vw"} | {"b": zeros(16, dtype="int32")}
    graph = build_graph(nodes, tensors)
    check_graph(graph, "esp32p4")
    with pytest.raises(UnsupportedOpError, match=r"shares its bias with \['a', 'c'\]; the chip"):
        check_graph(graph, "esp32s3")


def test_an_output_without_a_name(build_graph):
    node = Node("n", "Relu", ("x",), ("",), {"quant_type": "S8"})
    with pytest.raises(UnsupportedOpError, match="output 0 has no name; the chip gives it no mem"):
        check_graph(build_graph([node], {"x": act(1)}, outputs=["x"]), "esp32s3")


def test_a_graph_input_that_nobody_reads(one_node):
    graph = one_node("Relu", {"x": act(1, 4)}, {"y": act(1, 4)})
    check_graph(graph, "esp32s3")
    idle = type(graph)(**vars(graph) | {"inputs": (*graph.inputs, graph.outputs[0])})
    with pytest.raises(UnsupportedOpError, match=r"no node reads the graph inputs \['y'\]"):
        check_graph(idle, "esp32s3")


def test_lengths_that_no_chip_holds(one_node):
    def graph(frames):
        shape = (1, frames, 1)
        return one_node("Relu", {"x": act(*shape)}, {"y": act(*shape)})

    check_graph(graph(12 * 2**20), "esp32p4")
    with pytest.raises(UnsupportedOpError, match="its tensors take 25165826 bytes, the most for"):
        check_graph(graph(12 * 2**20 + 1), "esp32p4")
    chosen = {"x": (1, 12 * 2**20 + 1, 1)}
    assert check_graph(graph(1), "esp32p4", chosen)["y"] == chosen["x"]


@pytest.mark.parametrize(
    ("operator", "macs"), [("Conv", 2**30 + 2**15), ("MaxPool", (2**15 + 2**10) * (2**15 + 1))]
)
def test_work_that_no_file_asks_for(one_node, operator, macs):
    shape = act(1, 2**15, 1)
    kernel = 2**15 + 1
    attributes = {"strides": (1,), "dilations": (1,), "pads": (kernel // 2, kernel // 2)}
    if operator == "Conv":
        inputs = {"x": shape, "w": (np.zeros((kernel, 1, 1), "int8"), 0)}
    else:
        inputs, attributes = {"x": shape}, attributes | {"kernel_shape": (kernel,)}
        attributes.pop("dilations")
    with pytest.raises(UnsupportedOpError, match=f"one run takes {macs} multiply-accumulates"):
        check_graph(one_node(operator, inputs, {"y": shape}, attributes), "esp32p4")


def test_ranks_and_lists_that_no_file_needs(one_node):
    def reshaped(operator, dims):
        inputs = {"x": act(2, 4), "s": np.array(dims, "<i8")}
        return one_node(operator, inputs, {"y": act(2, 4)})

    check_graph(reshaped("Unsqueeze", range(6)), "esp32p4")
    with pytest.raises(UnsupportedOpError, match="output would have 9 dimensions, not 8"):
        check_graph(reshaped("Unsqueeze", range(7)), "esp32p4")
    check_graph(reshaped("Reshape", [8, *[1] * 7]), "esp32p4")
    with pytest.raises(UnsupportedOpError, match="output would have 9 dimensions, not 8"):
        check_graph(reshaped("Reshape", [8, *[1] * 8]), "esp32p4")
    with pytest.raises(UnsupportedOpError, match="input 1 lists 4097 numbers, at most 4096"):
        check_graph(reshaped("Reshape", [1] * 4097), "esp32p4")


def test_what_kernels_keep_is_bounded_together(build_graph):
    """One filter that many nodes share is widened for each of them."""

    def shared(count):
        nodes = [
            Node(f"n{i}", "Gemm", ("x", "w"), (f"y{i}",), {"quant_type": "S8"})
            for i in range(count)
        ]
        tensors = {"x": act(1, 1024), "w": (np.ones((1, 1, 1024, 1024), "int8"), -7)}
        return build_graph(nodes, tensors | {f"y{i}": act(1, 1024) for i in range(count)})

    check_graph(shared(24), "esp32p4")
    with pytest.raises(UnsupportedOpError, match="its weights, tables and padded inputs take 2097"):
        check_graph(shared(25), "esp32p4")


def test_a_refusal_names_a_hundred_reasons_and_quotes_briefly(build_graph):
    nodes = [Node(f"n{i}", "Erf", ("x",), (f"y{i}",), {"quant_type": "S8"}) for i in range(103)]
    long = Node("long", "Relu", ("x",), ("z",), {"quant_type": "q" * 10**6})
    tensors = {name: act(1, 4) for name in ("x", "z", *(f"y{i}" for i in range(103)))}
    with pytest.raises(UnsupportedOpError) as caught:
        check_graph(build_graph([long, *nodes], tensors), "esp32s3")
    text = str(caught.value)
    assert "ESP-DL cannot run 104 nodes of this graph" in text
    assert "\n  Relu 'long': quant_type 'qqq" in text
    assert " … qqq" in text
    assert "\n  Erf 'n98': " in text
    assert "'n99'" not in text
    assert "\n  and 4 more\n" in text
    assert len(text) < 20_000


def test_an_unknown_target(one_node):
    with pytest.raises(ConfigError, match="unknown target 'esp32c6'; there are esp32s3, esp32p4, "):
        check_graph(one_node("Relu", {"x": act(1)}, {"y": act(1)}), "esp32c6")
