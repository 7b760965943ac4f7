"""Shapes from the inputs: what the kernels recorded, other lengths, and each operator's rule."""

import numpy as np
import pytest

from espdl_hil.errors import ArtifactError, ConfigError, UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.espdl.graph import Node
from espdl_hil.operators import NodeProblem, infer_shapes, output_shapes
from espdl_hil.operators.shapes import RULES
from espdl_hil.operators.table import OPERATORS


def test_every_recorded_tensor_has_the_inferred_shape(golden, golden_names):
    compared = 0
    for name in golden_names:
        data, _, tensors = golden(name)
        graph = load_graph(data)
        shapes = infer_shapes(graph)
        for tensor in {tensor for node in graph.nodes for tensor in node.outputs}:
            prefix = "s0/t0/out" if tensor.startswith("/") else "s0/t0/out/"
            assert shapes[tensor] == tensors[prefix + tensor].shape, (name, tensor)
            compared += 1
    assert compared == 720


def test_a_streaming_file_keeps_offline_lengths_that_are_not_believed(golden):
    graph = load_graph(golden("stream_stack.streaming.esp32s3.int8")[0])
    shapes = infer_shapes(graph)
    cache = next(node for node in graph.nodes if node.op_type == "StreamingCache")
    frames = shapes[cache.inputs[0]][1]
    assert shapes[cache.outputs[0]][1] == frames + cache.attributes["window_size"] - 1
    made = graph.nodes[-1].outputs[0]
    assert shapes[made] != graph.value_info[made].shape


def test_a_causal_file_at_another_length(golden):
    graph = load_graph(golden("conv1d_causal_k3.esp32s3.int8")[0])
    name = graph.inputs[0].name
    batch, frames, channels = infer_shapes(graph)[name]
    longer = infer_shapes(graph, {name: (batch, frames + 7, channels)})
    assert longer[graph.outputs[0].name][1] == infer_shapes(graph)[graph.outputs[0].name][1] + 7


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"q": (1,)}, "built: no graph input 'q'; there are ['x']"),
        ({"x": (1, 2, 3)}, "built: input 'x' has shape (1, 4), (1, 2, 3) does not fit"),
        ({"x": (0, 4)}, "built: input 'x' has shape (1, 4), (0, 4) does not fit"),
    ],
)
def test_input_shapes_that_do_not_fit(one_node, shapes, message):
    graph = one_node("Relu", {"x": ("int8", (1, 4))}, {"y": ("int8", (1, 4))})
    with pytest.raises(ConfigError) as caught:
        infer_shapes(graph, shapes)
    assert str(caught.value) == message


def test_an_input_of_unknown_length_needs_one(one_node):
    graph = one_node("Relu", {"x": ("int8", (1, -1))}, {"y": ("int8", (1, -1))})
    with pytest.raises(ArtifactError, match=r"the shape of input 'x' is not fixed: \(1, -1\)"):
        infer_shapes(graph)
    assert infer_shapes(graph, {"x": (1, 9)})["y"] == (1, 9)


def test_every_misfit_is_named_at_once_and_what_depends_on_it_is_not(build_graph):
    nodes = [
        Node("a", "Transpose", ("x",), ("p",), {"perm": (0, 1)}),
        Node("b", "Relu", ("p",), ("q",)),
        Node("c", "Concat", ("x", "y"), ("r",), {"axis": 2}),
    ]
    tensors = dict.fromkeys("xpqr", ("int8", (1, 2, 3))) | {"y": ("int8", (1, 4, 3))}
    with pytest.raises(UnsupportedOpError) as caught:
        infer_shapes(build_graph(nodes, tensors))
    assert str(caught.value) == (
        "built: ESP-DL cannot run 2 nodes of this graph:\n"
        "  Transpose 'a': perm (0, 1) does not fit the 3 dimensions\n"
        "  Concat 'c': inputs [(1, 2, 3), (1, 4, 3)] differ outside axis 2"
    )


def i64(*values):
    return np.array(values, "int64")


def f32(*values):
    return np.array(values, "float32")


CONV = {"strides": (2,), "dilations": (1,), "pads": (1, 1), "group": 1}
CONV2D = {"strides": (2, 1), "dilations": (1, 2), "pads": (1, 2, 0, 2), "group": 1}
# operator, shapes or constants of the inputs, attributes, shapes of the outputs
FITTING = [
    ("Add", [(1, 3, 4), (4,)], {}, [(1, 3, 4)]),
    ("Add", [(1, 3, 1), (2, 1, 4)], {}, [(2, 3, 4)]),
    ("Mul", [(), (3, 4)], {}, [(3, 4)]),
    ("AveragePool", [(1, 9, 4)], {"kernel_shape": (3,), "strides": (2,)}, [(1, 4, 4)]),
    (
        "MaxPool",
        [(1, 6, 7, 2)],
        {"kernel_shape": (2, 3), "strides": (2, 2), "pads": (0, 1, 0, 1)},
        [(1, 3, 4, 2)],
    ),
    ("Concat", [(1, 2, 3), (1, 5, 3)], {"axis": -2}, [(1, 7, 3)]),
    ("Conv", [(1, 9, 4), np.zeros((3, 4, 8), "int8")], CONV, [(1, 5, 8)]),
    ("Conv", [(1, 9, 4), np.zeros((3, 4, 1), "int8")], CONV | {"group": 4}, [(1, 5, 4)]),
    ("Conv", [(1, 8, 9, 4), np.zeros((3, 2, 4, 5), "int8")], CONV2D, [(1, 4, 11, 5)]),
    ("Gemm", [(2, 5, 4), np.zeros((1, 1, 4, 7), "int8")], {}, [(2, 5, 7)]),
    ("MatMul", [(4,), (4,)], {}, [(1,)]),
    ("MatMul", [(3, 4), (4, 5)], {}, [(3, 5)]),
    ("MatMul", [(4,), (4, 5)], {}, [(5,)]),
    ("MatMul", [(3, 4), (4,)], {}, [(3,)]),
    ("MatMul", [(4,), (2, 4, 5)], {}, [(2, 5)]),
    ("MatMul", [(2, 3, 4), (4,)], {}, [(2, 3)]),
    ("MatMul", [(3, 4), (2, 4, 5)], {}, [(2, 3, 5)]),
    ("MatMul", [(1, 2, 3, 4), (6, 1, 4, 5)], {}, [(6, 2, 3, 5)]),
    ("GlobalAveragePool", [(1, 8, 9, 4)], {}, [(1, 1, 1, 4)]),
    ("Flatten", [(2, 3, 4)], {"axis": 2}, [(6, 4)]),
    ("Flatten", [(2, 3, 4)], {"axis": -2}, [(2, 12)]),
    ("Flatten", [(2, 3, 4)], {"axis": 0}, [(1, 24)]),
    ("Reshape", [(2, 3, 4), i64(0, -1)], {}, [(2, 12)]),
    ("Reshape", [(2, 3, 4), i64(4, 6)], {}, [(4, 6)]),
    ("Squeeze", [(1, 3, 1)], {}, [(3,)]),
    ("Squeeze", [(1, 3, 1), i64(-1)], {}, [(1, 3)]),
    ("Squeeze", [(1, 3, 1), i64(1)], {}, [(1, 3, 1)]),
    ("Unsqueeze", [(3, 4), i64(0, -1)], {}, [(1, 3, 4, 1)]),
    ("Transpose", [(2, 3, 4)], {"perm": (0, -1, -2)}, [(2, 4, 3)]),
    ("Pad", [(2, 3), i64(0, 1, 2, 3)], {}, [(4, 7)]),
    ("Slice", [(9, 8), i64(1, -6), i64(7, 2**62)], {}, [(6, 6)]),
    ("Slice", [(9, 8), i64(1), i64(100), i64(-1), i64(3)], {}, [(9, 3)]),
    ("Slice", [(9, 8), i64(-1), i64(-(2**62)), i64(0), i64(-1)], {}, [(9, 8)]),
    ("Split", [(1, 6), i64(2, 4)], {"axis": 1}, [(1, 2), (1, 4)]),
    ("Gather", [(2, 3, 4), np.zeros((5, 6), "int64")], {"axis": 1}, [(2, 5, 6, 4)]),
    ("Gather", [(2, 3), np.array(1, "int64")], {"axis": 1}, [(2,)]),
    ("ReduceSum", [(2, 3, 4), i64(1)], {}, [(2, 1, 4)]),
    ("ReduceSum", [(2, 3, 4), i64(1, -1)], {"keepdims": 0}, [(2,)]),
    ("ReduceMax", [(2, 3, 4)], {"keepdims": 0}, [(1,)]),
    ("Resize", [(1, 3, 4, 5), "missing", f32(1, 1, 2, 2.5)], {}, [(1, 6, 10, 5)]),
    ("Resize", [(1, 3, 5), "missing", "missing", i64(1, 5, 7)], {}, [(1, 7, 5)]),
    ("DepthToSpace", [(1, 2, 3, 8)], {"blocksize": 2}, [(1, 4, 6, 2)]),
    ("SpaceToDepth", [(1, 4, 6, 2)], {"blocksize": 2}, [(1, 2, 3, 8)]),
    ("InsertZeros", [(1, 4, 2)], {"stride": (3,), "output_padding": (1,)}, [(1, 11, 2)]),
    ("InsertZeros", [(1, 2, 3, 2)], {"stride": (2,), "output_padding": (0, 1)}, [(1, 3, 6, 2)]),
    ("StreamingCache", [(1, 3, 8)], {"frame_axis": -2, "window_size": 5}, [(1, 7, 8)]),
    ("LayerNormalization", [(1, 3, 8)], {"axis": -1}, [(1, 3, 8), (1, 3, 1), (1, 3, 1)]),
    ("GRU", [(5, 1, 8)], {"hidden_size": 6}, [(5, 1, 1, 6), (1, 1, 6)]),
    (
        "LSTM",
        [(1, 5, 8)],
        {"hidden_size": 6, "layout": 1, "direction": "bidirectional"},
        [(5, 2, 1, 6), (2, 1, 6), (2, 1, 6)],
    ),
    ("Softmax", [(2, 3)], {}, [(2, 3)]),
    ("LUT", [(2, 3)], {}, [(2, 3)]),
]


def make(one_node, operator, inputs, attributes, outputs):
    named = {}
    for i, value in enumerate(inputs):
        if isinstance(value, str):
            named[f"missing{i}"] = ("int8", ())
        else:
            named[f"i{i}"] = value if isinstance(value, np.ndarray) else ("int8", value)
    return one_node(
        operator,
        named,
        {f"o{i}": ("int8", shape) for i, shape in enumerate(outputs)},
        attributes,
    )


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "outputs"), FITTING, ids=lambda v: str(v)[:40]
)
def test_output_shapes(one_node, operator, inputs, attributes, outputs):
    shapes = infer_shapes(make(one_node, operator, inputs, attributes, outputs))
    assert [shapes[f"o{i}"] for i in range(len(outputs))] == outputs


MISFITS = [
    ("Add", [(1, 3, 4), (3,)], {}, "shapes (1, 3, 4) and (3,) do not broadcast; the chip takes"),
    ("Add", [(1, 3)], {}, "input 1 is missing"),
    ("AveragePool", [(9, 4)], {}, "input of 2 dimensions, ESP-DL takes (N, W, C) or (N, H, W, C)"),
    ("AveragePool", [(1, 9, 4)], {"strides": (1,)}, "attribute kernel_shape should be a list"),
    ("AveragePool", [(1, 9, 4)], {"kernel_shape": (2, 2)}, "kernel_shape (2, 2) does not fit 1"),
    ("AveragePool", [(1, 9, 4)], {"kernel_shape": (0,)}, "kernel_shape (0,) does not fit 1"),
    (
        "MaxPool",
        [(1, 2, 4)],
        {"kernel_shape": (3,), "strides": (1,)},
        "the kernel spans 3 of axis 1, padded to 2",
    ),
    ("Concat", [(1, 2)], {"axis": 1}, "one input, ESP-DL takes two or more"),
    ("Concat", [(1, 2), (1, 2)], {"axis": 2}, "axis 2 is outside the 2 dimensions"),
    ("Concat", [(1, 2), (1, 2)], {}, "attribute axis should be an int32, found None"),
    (
        "Conv",
        [(1, 9, 4), np.zeros((3, 2, 8), "int8")],
        CONV | {"group": 2},
        "group 2 with 4 channels; ESP-DL takes group 1 or depthwise",
    ),
    (
        "Conv",
        [(1, 9, 4), np.zeros((3, 5, 8), "int8")],
        CONV,
        "a filter of shape (3, 5, 8) does not fit 4 channels",
    ),
    ("Conv", [(1, 9, 4), np.zeros((1, 3, 4, 8), "int8")], CONV, "does not fit 1 spatial axes"),
    (
        "Conv",
        [(1, 9, 4), np.zeros((3, 4, 8), "int8")],
        CONV | {"pads": (1, 1, 1, 1)},
        "pads (1, 1, 1, 1) do not fit 1 spatial axes",
    ),
    (
        "Conv",
        [(1, 9, 4), np.zeros((3, 4, 8), "int8")],
        CONV | {"strides": (2**40,)},
        "attribute strides should be a list of int32",
    ),
    ("Gemm", [(2, 5), np.zeros((1, 1, 4, 7), "int8")], {}, "has not the filter's 4 channels"),
    ("Gemm", [(2, 4), np.zeros((4, 7), "int8")], {}, "a filter of shape (4, 7), ESP-DL takes"),
    ("MatMul", [(3, 4), (5, 4)], {}, "shapes (3, 4) and (5, 4) do not multiply"),
    ("MatMul", [(1,) * 5, (1,)], {}, "ESP-DL takes 1 to 4 dimensions"),
    ("Flatten", [(2, 3)], {"axis": 3}, "axis 3 is outside the 2 dimensions"),
    (
        "Reshape",
        [(1, 3, 16), i64(1, 384)],
        {},
        "the shape tensor (1, 384) does not hold the 48 elements of (1, 3, 16); a frame "
        "count of the offline model was kept, and the chip asserts at load",
    ),
    ("Reshape", [(2, 3), i64(-1, -1)], {}, "the shape tensor (-1, -1) is not a shape"),
    ("Reshape", [(2, 3), i64(-2, 3)], {}, "the shape tensor (-2, 3) is not a shape"),
    ("Reshape", [(2, 3), i64(0, 3)], {"allowzero": 1}, "the shape tensor (0, 3) is not a shape"),
    ("Reshape", [(2, 3), (2,)], {}, "input 1 ('i1') must be a constant, ESP-DL reads it at load"),
    ("Reshape", [(2, 3)], {}, "there is no shape tensor"),
    ("Squeeze", [(1, 3), i64(2)], {}, "axis 2 is outside the 2 dimensions"),
    ("Unsqueeze", [(3,), i64(0, 0)], {}, "axes (0, 0) repeat"),
    ("Unsqueeze", [(3,)], {}, "there is no axes tensor"),
    ("Transpose", [(2, 3)], {"perm": (0, 0)}, "perm (0, 0) does not fit the 2 dimensions"),
    ("Transpose", [(2, 3)], {}, "attribute perm should be a list of int32, found None"),
    ("Pad", [(2, 3), i64(1, 1)], {}, "pads (1, 1) do not fit the 2 dimensions"),
    ("Pad", [(2, 3), i64(-2, 0, 0, 0)], {}, "the output would have shape (0, 3)"),
    (
        "Slice",
        [(3, 8), i64(20), i64(24), i64(0)],
        {},
        "[20:24:1] of axis 0, which has 3, is empty; the chip asserts at load",
    ),
    ("Slice", [(3, 8), i64(0), i64(1), i64(0), i64(0)], {}, "a step of 0"),
    ("Slice", [(3, 8), i64(0, 0), i64(1)], {}, "starts and ends are missing or of different"),
    ("Slice", [(3, 8), i64(0, 0), i64(1, 1), i64(0)], {}, "axes or steps are shorter than starts"),
    (
        "Split",
        [(1, 6)],
        {"axis": 1, "num_outputs": 2},
        "there is no split tensor; ESP-DL takes num_outputs for the length of each",
    ),
    ("Split", [(1, 6), i64(2, 3)], {"axis": 1}, "parts (2, 3) for 1 outputs of axis 1"),
    ("Gather", [(2, 3), (4,)], {}, "input 1 ('i1') must be a constant"),
    ("ReduceSum", [(2, 3), np.zeros(1, "int32")], {}, "input 1 is int32, ESP-DL reads int64"),
    ("Resize", [(1, 3, 5)], {}, "neither sizes nor float32 scales for every axis"),
    ("Resize", [(1, 3, 5), "missing", f32(1, 1, -2)], {}, "are not positive numbers"),
    ("Resize", [(1, 3, 5), "missing", f32(1, 1, np.nan)], {}, "are not positive numbers"),
    ("Resize", [(1, 3, 5), "missing", "missing", i64(1, 5)], {}, "sizes (1, 5) do not fit"),
    ("DepthToSpace", [(1, 2, 3, 6)], {"blocksize": 2}, "6 channels are not a multiple"),
    ("DepthToSpace", [(2, 3, 8)], {"blocksize": 2}, "ESP-DL takes (N, H, W, C)"),
    ("DepthToSpace", [(1, 2, 3, 8)], {"blocksize": 0}, "blocksize 0"),
    ("SpaceToDepth", [(1, 3, 6, 2)], {"blocksize": 2}, "(3, 6) is not a multiple of blocksize 2"),
    ("InsertZeros", [(1, 4, 2)], {"stride": (0,), "output_padding": (0,)}, "stride (0,) and"),
    ("StreamingCache", [(1, 3, 8)], {"window_size": 0}, "window_size 0, expected 1 or more"),
    ("StreamingCache", [(1, 3, 8)], {"frame_axis": 3, "window_size": 2}, "axis 3 is outside"),
    ("GRU", [(5, 8)], {"hidden_size": 6}, "input (5, 8), ESP-DL takes three dimensions"),
    ("LSTM", [(5, 1, 8)], {}, "attribute hidden_size should be an int32, found None"),
    ("Erf", [(1,)], {}, "ESP-DL has no operator Erf"),
]


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "message"), MISFITS, ids=lambda v: str(v)[:40]
)
def test_what_does_not_fit(one_node, operator, inputs, attributes, message):
    with pytest.raises(UnsupportedOpError) as caught:
        infer_shapes(make(one_node, operator, inputs, attributes, [()]))
    assert message in str(caught.value)
    assert f"{operator} 'n'" in str(caught.value)


def test_more_outputs_than_the_operator_makes(one_node):
    with pytest.raises(UnsupportedOpError, match="2 outputs, ESP-DL makes 1"):
        infer_shapes(make(one_node, "Relu", [(1,)], {}, [(1,), (1,)]))


def test_every_operator_has_a_rule():
    assert set(RULES) == set(OPERATORS)
    tested = {case[0] for case in FITTING}
    assert {RULES[name] for name in RULES} == {RULES[name] for name in tested}


def test_shapes_of_one_node_from_plain_data():
    # as the exporter spells it: lists for tuples, None for an attribute that is not there
    attributes = {"strides": [2], "dilations": [1], "pads": [2, 0], "group": 1, "auto_pad": None}
    conv = Node("n", "Conv", ("x", "w", ""), ("y",), attributes)
    assert output_shapes(conv, ((1, 9, 4), (3, 4, 20), None), {}) == ((1, 5, 20),)
    reshape = Node("n", "Reshape", ("x", "shape"), ("y",), {"allowzero": None})
    constants = {"shape": np.array([0, -1], "int64")}
    assert output_shapes(reshape, [(6, 2, 2), (2,)], constants) == ((6, 4),)


@pytest.mark.parametrize(
    ("node", "shapes", "message"),
    [
        (Node("n", "Attention", ("x",), ("y",)), [(1, 2)], "ESP-DL has no operator Attention"),
        (Node("n", "Add", ("x", "z"), ("y",)), [(2,), (3,)], r"\(2,\) and \(3,\) do not broadc"),
        (Node("n", "Add", ("x", ""), ("y",)), [(2,), None], "input 1 is missing"),
        (Node("n", "Relu", ("x",), ("y", "z")), [(2,)], "2 outputs, ESP-DL makes 1"),
        (Node("n", "Gather", ("x", "i"), ("y",)), [(2,), (1,)], "input 1 .* must be a constant"),
    ],
)
def test_one_node_that_does_not_fit(node, shapes, message):
    with pytest.raises(NodeProblem, match=message):
        output_shapes(node, shapes, {})
