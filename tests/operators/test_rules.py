"""Every rule of `check_graph`: a sound node, and what one change to it is answered with."""

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.espdl.graph import Tensor, TensorInfo
from espdl_hil.operators import OPERATORS, check_graph
from espdl_hil.operators.select import chip_indices
from espdl_hil.operators.signature import no_rules


def act(*shape, e=-4, dtype="int8"):
    return (dtype, shape, e)


def const(array, e=0, dtype="int8"):
    return (np.asarray(array, dtype), e)


def i64(*values):
    return np.array(values, "int64")


def f32(*values):
    return np.array(values, "float32")


def zeros(*shape, e=-7, dtype="int8"):
    return (np.zeros(shape, dtype), e)


MISSING = ("int8", (), "missing")
TABLE = np.arange(-128, 128).astype("int8")
CONV = {"strides": (1,), "dilations": (1,), "pads": (2, 0), "group": 1, "activation": "Relu"}
POOL = {"kernel_shape": (3,), "strides": (1,), "pads": (2, 0)}
PER_CHANNEL = tuple(range(-10, 10))

# A sound node for each operator: inputs, outputs, attributes. Refusals below change one thing.
SOUND = {
    "Add": ([act(1, 3, 4), act(4)], [act(1, 3, 4)], {}),
    "AveragePool": ([act(1, 9, 4)], [act(1, 9, 4)], POOL),
    "Clip": ([act(3), const(0, e=-4), const(9, e=-4)], [act(3)], {}),
    "Concat": ([act(1, 2), act(1, 3)], [act(1, 5)], {"axis": 1}),
    "Conv": (
        [act(1, 9, 4), zeros(3, 4, 20), zeros(20, e=-11, dtype="int32")],
        [act(1, 9, 20)],
        CONV,
    ),
    "DepthToSpace": ([act(1, 2, 3, 8)], [act(1, 4, 6, 2)], {"blocksize": 2}),
    "DequantizeLinear": ([act(3)], [("float32", (3,))], {}),
    "Div": ([act(1, 9), act(1, 9)], [act(1, 9)], {}),
    "Equal": ([act(3), act(3)], [("bool", (3,))], {}),
    "Flatten": ([act(2, 3)], [act(2, 3)], {}),
    "GRU": (
        [
            act(5, 1, 8, e=-5),
            zeros(1, 18, 8),
            zeros(1, 18, 6),
            zeros(1, 36, e=-9, dtype="int16"),
            MISSING,
            act(1, 1, 6, e=-7),
        ],
        [act(5, 1, 1, 6, e=-7), act(1, 1, 6, e=-7)],
        {"hidden_size": 6, "linear_before_reset": 1, "gate_exponent": -9},
    ),
    "Gather": ([act(2, 3), i64(0, 2)], [act(2, 2)], {"axis": 1}),
    "Gemm": ([act(2, 4), zeros(1, 1, 4, 7)], [act(2, 7)], {"alpha": 1.0, "transB": 0}),
    "GlobalAveragePool": ([act(1, 5, 4)], [act(1, 1, 4)], {}),
    "InsertZeros": ([act(1, 4, 2)], [act(1, 7, 2)], {"stride": (2,), "output_padding": (0,)}),
    "LSTM": (
        [
            act(5, 1, 8, e=-5),
            zeros(1, 24, 8),
            zeros(1, 24, 6),
            zeros(1, 48, e=-9, dtype="int16"),
            MISSING,
            act(1, 1, 6, e=-7),
            act(1, 1, 6, e=-9, dtype="int16"),
        ],
        [act(5, 1, 1, 6, e=-7), act(1, 1, 6, e=-7), act(1, 1, 6, e=-9, dtype="int16")],
        {"hidden_size": 6, "gate_exponent": -9},
    ),
    "LUT": ([act(3)], [act(3)], {"lut": "table"}),
    "LayerNormalization": ([act(1, 3, 8), zeros(8), zeros(8)], [act(1, 3, 8)], {"axis": -1}),
    "LpNormalization": ([act(1, 8)], [act(1, 8)], {"axis": 1, "p": 1}),
    "MatMul": ([act(3, 4), act(4, 5)], [act(3, 5)], {}),
    "MaxPool": ([act(1, 9, 4)], [act(1, 9, 4)], POOL),
    "Mod": ([act(3), act(3)], [act(3)], {"fmod": 1}),
    "Mul": ([act(1, 16, e=-4), act(1, 16, e=-4)], [act(1, 16, e=-4)], {}),
    "PRelu": ([act(1, 2, 3, 4), zeros(4, 1, 1)], [act(1, 2, 3, 4)], {}),
    "Pad": ([act(2, 3), i64(0, 1, 0, 1), const(5, e=-4)], [act(2, 5)], {"mode": "constant"}),
    "RMSNormalization": ([act(1, 3, 8), f32(*[1] * 8)], [act(1, 3, 8)], {"axis": -1}),
    "ReduceSum": ([act(2, 3, 4), i64(1)], [act(2, 1, 4)], {}),
    "RequantizeLinear": ([act(3), f32(1)], [act(3, e=-6)], {}),
    "Resize": (
        [act(1, 4, 16), MISSING, f32(1, 1, 2)],
        [act(1, 8, 16)],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "ReverseSequence": ([act(4, 2, 3), i64(4, 1)], [act(4, 2, 3)], {}),
    "ScatterND": ([act(4, 3), i64(1, 3).reshape(2, 1), act(2, 3)], [act(4, 3)], {}),
    "Sigmoid": ([act(3)], [act(3, e=-7)], {"lut": "table"}),
    "Slice": ([act(9, 4), i64(1), i64(8), i64(0), i64(2)], [act(4, 4)], {}),
    "Softmax": ([act(3)], [("float32", (3,))], {"axis": 0}),
    "Split": ([act(1, 6), i64(2, 4)], [act(1, 2), act(1, 4)], {"axis": 1}),
    "StreamingCache": ([act(1, 3, 8)], [act(1, 5, 8)], {"frame_axis": 1, "window_size": 3}),
    "Transpose": ([act(2, 3)], [act(3, 2)], {"perm": (1, 0)}),
}


@pytest.fixture
def sound(one_node):
    """Function that makes the sound node with inputs and outputs (by index, None drops one),
    attributes, operator name or look-up table (array and exponents; False for none) replaced.
    """

    def build(operator, *, inputs=None, outputs=None, attributes=None, name=None, table=None):
        base_inputs, base_outputs, base_attributes = SOUND[operator]
        taken, made = (
            dict(sorted((dict(enumerate(base)) | (new or {})).items()))
            for base, new in ((base_inputs, inputs), (base_outputs, outputs))
        )
        graph = one_node(
            name or operator,
            {
                f"missing{i}" if value is MISSING else f"i{i}": value
                for i, value in taken.items()
                if value is not None
            },
            {f"o{i}": value for i, value in made.items() if value is not None},
            {k: v for k, v in (base_attributes | (attributes or {})).items() if v is not None},
        )
        if table is not False:
            array, exponents = table or (TABLE, graph.outputs[0].exponents)
            info = TensorInfo("table", array.dtype, array.shape, exponents)
            graph.initializers["table"] = Tensor(info, array)
        return graph

    return build


@pytest.mark.parametrize("target", ["esp32s3", "esp32p4", "c"])
@pytest.mark.parametrize("operator", SOUND)
def test_the_sound_twin_passes(sound, operator, target):
    graph = sound(operator)
    shapes = check_graph(graph, target)
    assert [shapes[info.name] for info in graph.outputs] == [info.shape for info in graph.outputs]


def change(operator, message, target="esp32s3", **changes):
    return pytest.param(operator, target, message, changes, id=f"{operator}-{message[:40]}")


LONG = act(2, 1, 3, 1, 5)
REFUSED = [
    change("Add", "quant_type 'W8A16'", attributes={"quant_type": "W8A16"}),
    change("Add", "quant_type ''", attributes={"quant_type": ""}),
    change(
        "Add",
        "input 1 is int16, a node of quant_type S8 takes int8",
        inputs={1: act(4, dtype="int16")},
    ),
    change("Add", "output 0 is int16", outputs={0: act(1, 3, 4, dtype="int16")}),
    change("Add", "1 inputs, ESP-DL takes 2 or more", inputs={1: None}),
    change("Add", "input 2 is not read by ESP-DL", inputs={2: act(4)}),
    change("Add", "input 1 is missing", inputs={1: MISSING}),
    change(
        "Add",
        "its tensors have different exponents ('i0': -4, 'i1': -5, 'o0': -4); the chip ignores",
        inputs={1: act(4, e=-5)},
    ),
    change(
        "Add",
        "('i0': -4, 'i1': -4, 'o0': -3); the chip ignores them",
        outputs={0: act(1, 3, 4, e=-3)},
    ),
    change("Add", "'i0' has an exponent per channel", inputs={0: act(1, 3, 4, e=(-4, -4))}),
    change(
        "Sub", "'i1' has exponent (31,); the chip computes 1 << exponent", inputs={1: act(4, e=31)}
    ),
    change("Add", "shapes (1, 3, 4) and (3,) do not broadcast", inputs={1: act(3)}),
    change("Add", "two scalars: the chip has no loop for them", inputs={0: act(), 1: act()}),
    change(
        "Mul",
        "broadcasting takes 5 loops, the chip asserts",
        inputs={0: LONG, 1: act(1, 2, 1, 2, 1)},
    ),
    change(
        "Equal",
        "the inputs have exponents (-4,) and (-3,); the chip compares",
        inputs={1: act(3, e=-3)},
    ),
    change("Equal", "output 0 is int8, a node of quant_type S8 takes bool", outputs={0: act(3)}),
    change(
        "Mul",
        "output exponent minus input exponents is -1: the product would be shifted left",
        inputs={0: act(1, 16, e=-1), 1: act(1, 16, e=-2)},
    ),
    change(
        "Div", "input 1 is a single computed element; the chip makes a table", inputs={1: act(1, 1)}
    ),
    change("Div", "input 0 is a single computed element", inputs={0: act(1)}),
    change("Div", "input 1 is the constant 0", inputs={1: const([0])}),
    change("Mod", "fmod is 0", attributes={"fmod": 0}),
    change("Sigmoid", "the look-up table 'table' is not in the file", table=False),
    change("Sigmoid", "the look-up table has 255 entries, expected 256", table=(TABLE[1:], (-7,))),
    change(
        "Sigmoid",
        "the look-up table has exponent (-6,), the output (-7,); the chip asserts",
        table=(TABLE, (-6,)),
    ),
    change(
        "Sigmoid",
        "the look-up table is int16, the output int8",
        table=(TABLE.astype("int16"), (-7,)),
    ),
    change("LUT", "there is no look-up table", attributes={"lut": None}),
    change("LUT", "quant_type 'F32'", attributes={"quant_type": "F32"}),
    change(
        "Clip",
        "bound 1 has exponent (-5,), the input (-4,); the chip compares",
        inputs={1: const(0, e=-5)},
    ),
    change("Clip", "bound 2 is empty", inputs={2: (np.zeros(0, "int8"), -4)}),
    change(
        "PRelu",
        "input (2, 4), ESP-DL takes (N, H, W, C)",
        inputs={0: act(2, 4)},
        outputs={0: act(2, 4)},
    ),
    change("PRelu", "a slope of shape (4,), the chip asserts (C, 1, 1)", inputs={1: zeros(4)}),
    change("PRelu", "1 slopes for 4 channels", inputs={1: zeros(1, 1, 1)}),
    change(
        "PRelu",
        "input and output exponents differ; the chip copies",
        target="c",
        outputs={0: act(1, 2, 3, 4, e=-5)},
    ),
    change(
        "PRelu",
        "the chip multiplies what is positive by -128, 6 bits are the most: calibrate both",
        outputs={0: act(1, 2, 3, 4, e=-11)},
    ),
    change("PRelu", "the product is shifted right by -1 bits", inputs={1: zeros(4, 1, 1, e=1)}),
    change("Conv", "quant_type 'F32'", attributes={"quant_type": "F32"}),
    change("Conv", "input 1 must be a constant", inputs={1: act(3, 4, 20)}),
    change(
        "Conv",
        "input 2 is int64, a node of quant_type S8 takes int32",
        inputs={2: zeros(20, dtype="int64")},
    ),
    change("Conv", "19 bias elements for 20 channels", inputs={2: zeros(19, dtype="int32")}),
    change(
        "Conv",
        "a batch of 2, the kernel computes the first one only",
        inputs={0: act(2, 9, 4)},
        outputs={0: act(2, 9, 20)},
    ),
    change(
        "Conv", "activation 'Clip', ESP-DL fuses Linear or Relu", attributes={"activation": "Clip"}
    ),
    change(
        "Conv",
        "auto_pad 'SAME_UPPER', the chip reads pads only",
        attributes={"auto_pad": "SAME_UPPER"},
    ),
    change("Conv", "a window of axis 1 lies in the padding alone", attributes={"pads": (3, 0)}),
    change("Conv", "a window of axis 1 lies in the padding alone", attributes={"pads": (0, 3)}),
    change("Conv", "pads (-1, 1) are negative", attributes={"pads": (-1, 1)}),
    change("Conv", "group 2 with 4 channels", attributes={"group": 2}),
    change(
        "Conv",
        "a depthwise filter of shape (3, 4, 2)",
        inputs={1: zeros(3, 4, 2), 2: None},
        attributes={"group": 4},
    ),
    change(
        "Conv",
        "the filter has an exponent per channel, which esp32s3 does not have",
        inputs={1: zeros(3, 4, 20, e=PER_CHANNEL)},
    ),
    change(
        "Conv",
        "20 filter exponents for 7 channels",
        inputs={1: zeros(3, 4, 7, e=PER_CHANNEL), 2: None},
    ),
    change(
        "Conv",
        "output exponent minus input and filter exponent is -1: the accumulator would be shifted",
        target="esp32p4",
        outputs={0: act(1, 9, 20, e=-12)},
    ),
    change(
        "Conv",
        "which c can do by 31 bits only",
        target="c",
        outputs={0: act(1, 9, 20, e=-30)},
        inputs={0: act(1, 9, 4, e=9)},
    ),
    change(
        "Conv",
        "the accumulator is shifted right by 63, 62 is the most",
        target="c",
        inputs={1: zeros(3, 4, 20, e=-63)},
    ),
    change(
        "Conv",
        "the accumulator is shifted right by 33, 32 is the most; a coarser filter",
        inputs={1: zeros(3, 4, 20, e=-33)},
    ),
    change(
        "Gemm",
        "the accumulator is shifted right by 32, 31 is the most; a coarser filter",
        target="esp32p4",
        inputs={1: zeros(1, 1, 4, 7, e=-32)},
    ),
    change(
        "Conv",
        "bias 524288 of channel 3 (and 1 more) exceeds the 20-bit lanes of the chip",
        inputs={2: const([0, 0, 0, 2**19, -(2**19) - 1, *[0] * 15], dtype="int32")},
    ),
    change("Gemm", "alpha is 0.5, the chip does not read it", attributes={"alpha": 0.5}),
    change("Gemm", "transB is 1, the chip asserts that it is 0", attributes={"transB": 1}),
    change(
        "MatMul",
        "the second operand has layout 'native_kn'; ESP-DL 3.3 does not read",
        attributes={"input1_layout": "native_kn"},
    ),
    change(
        "MatMul", "'i1' has an exponent per channel", inputs={1: zeros(4, 5, e=(1, 2, 3, 4, 5))}
    ),
    change("MatMul", "input and filter exponent is -9", outputs={0: act(3, 5, e=-17)}),
    change(
        "MaxPool", "dilations (2,), the chip does not read them", attributes={"dilations": (2,)}
    ),
    change("MaxPool", "quant_type 'F32'", attributes={"quant_type": "F32"}),
    change("MaxPool", "its tensors have different exponents", outputs={0: act(1, 9, 4, e=-3)}),
    change(
        "AveragePool",
        "ceil_mode adds a window that the chip does not compute",
        attributes={"ceil_mode": 1, "strides": (3,)},
        outputs={0: act(1, 3, 4)},
    ),
    change("AveragePool", "a batch of 3", inputs={0: act(3, 9, 4)}, outputs={0: act(3, 9, 4)}),
    change("GlobalAveragePool", "a batch of 2", inputs={0: act(2, 5, 4)}),
    change("Resize", "quant_type 'S16'", attributes={"quant_type": "S16"}),
    change("Resize", "mode 'cubic', ESP-DL has nearest and linear", attributes={"mode": "cubic"}),
    change(
        "Resize",
        "nearest with half_pixel and floor",
        attributes={"coordinate_transformation_mode": "half_pixel"},
    ),
    change(
        "Resize",
        "scales [1.0, 2.0, 2.0] change the batch or the channels",
        inputs={2: f32(1, 2, 2)},
    ),
    change("Resize", "a region of interest, the chip does not read it", inputs={1: f32(0, 1)}),
    change("Resize", "antialias", attributes={"antialias": 1}),
    change(
        "Resize",
        "the output is finer than the input; the portable kernel",
        target="c",
        outputs={0: act(1, 8, 16, e=-5)},
    ),
    change(
        "Resize", "the output is 7 bits finer than the input", outputs={0: act(1, 8, 16, e=-11)}
    ),
    change(
        "Resize", "linear with asymmetric, the chip does half_pixel", attributes={"mode": "linear"}
    ),
    change(
        "Resize",
        "linear over (1,): the chip reads outside an axis of length 1",
        inputs={0: act(1, 1, 5)},
        outputs={0: act(1, 2, 5)},
        attributes={"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    ),
    change(
        "Resize",
        "pytorch_half_pixel to a length of 1",
        inputs={2: f32(1, 1, 0.25)},
        outputs={0: act(1, 1, 5)},
        attributes={"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    change(
        "Resize",
        "align_corners to a length of 1, which the chip computes as a division by zero",
        inputs={2: f32(1, 1, 0.25)},
        outputs={0: act(1, 1, 5)},
        attributes={"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    change(
        "StreamingCache",
        "frame_axis 2 of (1, 3, 8) has 3 rows before it; the chip puts the whole cache before",
        outputs={0: act(1, 3, 10)},
        attributes={"frame_axis": 2},
    ),
    change(
        "StreamingCache", "its tensors have different exponents", outputs={0: act(1, 5, 8, e=-5)}
    ),
    change(
        "StreamingCache", "input and output types differ", outputs={0: act(1, 5, 8, dtype="int16")}
    ),
    change("InsertZeros", "its tensors have different exponents", outputs={0: act(1, 7, 2, e=-3)}),
    change("Concat", "its tensors have different exponents", inputs={1: act(1, 3, e=-5)}),
    change(
        "Split",
        "there is no split tensor; ESP-DL takes num_outputs",
        inputs={1: None},
        attributes={"num_outputs": 2},
    ),
    change(
        "Slice",
        "axes [0, 0] repeat",
        inputs={1: i64(0, 0), 2: i64(4, 4), 3: i64(0, 0), 4: i64(1, 1)},
    ),
    change(
        "Slice",
        "starts, ends, axes and steps are ['int32', 'int64']",
        inputs={2: np.array([8], "int32")},
    ),
    change(
        "Slice",
        "[-20:8:2] of axis 0, which has 9: the chip takes other elements",
        inputs={1: i64(-20)},
    ),
    change(
        "Slice",
        "[5:1:-1] of axis 0, which has 9: the chip takes other",
        inputs={1: i64(5), 2: i64(1), 4: i64(-1)},
    ),
    change(
        "Slice",
        "[-9223372036854775807:8:2] of axis 0, which has 9: the chip takes other elements",
        inputs={1: i64(-(2**63) + 1)},
    ),
    change(
        "Slice",
        "more starts or axes than the 2 dimensions",
        inputs={1: i64(0, 0, 0), 2: i64(4, 4, 4), 3: i64(0, 1, 0), 4: i64(1, 1, 1)},
    ),
    change("Pad", "mode 'wrap', ESP-DL has constant, edge, reflect", attributes={"mode": "wrap"}),
    change(
        "Pad",
        "pads (0, 0, 0, -1) are negative",
        inputs={1: i64(0, 0, 0, -1)},
        outputs={0: act(2, 2)},
    ),
    change(
        "Pad",
        "pads (0, 3, 0, 0) reflect more than (2, 3) holds",
        inputs={1: i64(0, 3, 0, 0)},
        attributes={"mode": "reflect"},
    ),
    change(
        "Pad", "the padding value has exponent (-3,), the input (-4,)", inputs={2: const(5, e=-3)}
    ),
    change(
        "Pad",
        "the padding value is int16, the input int8",
        inputs={2: const(5, e=-4, dtype="int16")},
    ),
    change("Pad", "the padding value is empty", inputs={2: (np.zeros(0, "int8"), -4)}),
    change("Pad", "5 dimensions, ESP-DL pads up to 4", inputs={0: LONG, 1: i64(*[0] * 10)}),
    change(
        "Gather",
        "indices -1 to 2 of axis 1, which has 3; the chip does not count from the end",
        inputs={1: i64(-1, 2)},
    ),
    change("Gather", "indices 0 to 3 of axis 1", inputs={1: i64(0, 3)}),
    change("Gather", "input 1 is float32", inputs={1: f32(0, 1)}),
    change(
        "ScatterND",
        "reduction 'avg', ESP-DL has none, add, mul, max, min",
        attributes={"reduction": "avg"},
    ),
    change(
        "ScatterND",
        "indices outside (4,); the chip writes outside",
        inputs={1: i64(-1, 3).reshape(2, 1)},
    ),
    change("ScatterND", "updates of shape (2, 2), expected (2, 3)", inputs={2: act(2, 2)}),
    change(
        "ScatterND",
        "indices of shape (1, 3) do not fit (4, 3)",
        inputs={1: i64(0, 0, 0).reshape(1, 3)},
    ),
    change(
        "ReverseSequence",
        "batch_axis 2 and time_axis 0, the chip takes the first two",
        attributes={"batch_axis": 2},
    ),
    change(
        "ReverseSequence", "sequence lengths (5, 1) do not fit (4, 2, 3)", inputs={1: i64(5, 1)}
    ),
    change(
        "DepthToSpace",
        "DCR with blocksize 2 and 1 output channels: the chip takes one for the other",
        inputs={0: act(1, 2, 3, 4)},
    ),
    change("DepthToSpace", "mode 'ABC', ESP-DL has DCR and CRD", attributes={"mode": "ABC"}),
    change(
        "ReduceSum",
        "no axis is reduced (noop_with_empty_axes)",
        inputs={1: None},
        attributes={"noop_with_empty_axes": 1},
    ),
    change(
        "ReduceSum",
        "5 alternations of reduced and kept axes",
        inputs={0: act(2, 3, 4, 5, 6), 1: i64(1, 3)},
    ),
    change("ReduceMax", "its tensors have different exponents", outputs={0: act(2, 1, 4, e=-3)}),
    change(
        "RequantizeLinear",
        "float to float with different exponents",
        inputs={0: ("float32", (3,), 0)},
        outputs={0: ("float32", (3,), -3)},
    ),
    change(
        "RequantizeLinear",
        "the chip never writes the last 8 of the 56 outputs, which is 16 n + 8; split or pad",
        inputs={0: act(7, 8)},
        outputs={0: act(7, 8, e=-6, dtype="int16")},
    ),
    change(
        "RequantizeLinear",
        "7 bits finer than the input; the chip's shift to the left wraps, 1 becomes -128 where 127",
        inputs={0: act(51)},
        outputs={0: act(51, e=-11)},
    ),
    change(
        "RequantizeLinear",
        "5 bits finer than the input; the chip's shift to the left wraps, 16384 becomes",
        inputs={0: act(51, dtype="int16")},
        outputs={0: act(51, e=-9)},
    ),
    change(
        "RequantizeLinear",
        "15 bits finer than the input; the chip's shift to the left wraps, 1 becomes -32768",
        target="esp32p4",
        inputs={0: act(51)},
        outputs={0: act(51, e=-19, dtype="int16")},
    ),
    change(
        "Resize",
        "5 channels from (4,) to (8,): the vector kernels give garbage below 16 channels unless",
        inputs={0: act(1, 4, 5)},
        outputs={0: act(1, 8, 5)},
    ),
    change(
        "Resize",
        "the output is 1 bits coarser than the input; the chip does not set the rounding mode",
        target="esp32p4",
        outputs={0: act(1, 8, 16, e=-3)},
    ),
    change(
        "Equal",
        "places the output (12 bytes) in input 1 (12 bytes), which it repeats and still needs",
        inputs={0: act(2, 6, dtype="int16"), 1: act(1, 6, dtype="int16")},
        outputs={0: ("bool", (2, 6))},
    ),
    change(
        "RequantizeLinear",
        "input 0 is int32, a node of quant_type S8 takes int8 or",
        inputs={0: act(3, dtype="int32")},
        attributes={"quant_type": "S8"},
    ),
    change(
        "Softmax", "output 0 is int8, a node of quant_type S8 takes float32", outputs={0: act(3)}
    ),
    change("Softmax", "axis 1 is outside the 1 dimensions", attributes={"axis": 1}),
    change("LpNormalization", "p is 3, the chip computes 2 for all but 1", attributes={"p": 3}),
    change(
        "LayerNormalization", "input 1 has shape (4,), expected 8 elements", inputs={1: zeros(4)}
    ),
    change(
        "LayerNormalization", "epsilon 0.0 is not a positive number", attributes={"epsilon": 0.0}
    ),
    change(
        "RMSNormalization",
        "input 1 is int8, a node of quant_type S8 takes float32",
        inputs={1: zeros(8)},
    ),
    change(
        "GRU", "a batch of 2 sequences of 5, the chip computes one", inputs={0: act(5, 2, 8, e=-5)}
    ),
    change("GRU", "8193 frames in one run, 8192 is the most", inputs={0: act(8193, 1, 8, e=-5)}),
    change(
        "GRU", "direction 'reverse', the chip runs forward", attributes={"direction": "reverse"}
    ),
    change(
        "GRU",
        "linear_before_reset is 0, ESP-DL computes PyTorch's GRU only",
        attributes={"linear_before_reset": 0},
    ),
    change("GRU", "clip is set, the chip does not read it", attributes={"clip": 1.0}),
    change("GRU", "input 2 has shape (1, 18, 5), expected (1, 18, 6)", inputs={2: zeros(1, 18, 5)}),
    change("GRU", "input 4 is int64, a node of quant_type S8 takes nothing", inputs={4: i64(5)}),
    change("GRU", "1 outputs, the chip writes 2", outputs={1: None}),
    change("GRU", "Y and Y_h have different exponents", outputs={0: act(5, 1, 1, 6, e=-6)}),
    change("GRU", "initial_h and Y_h have different exponents", inputs={5: act(1, 1, 6, e=-6)}),
    change(
        "GRU",
        "the bias has exponent (-8,), the gates -9; the chip adds",
        inputs={3: zeros(1, 36, e=-8, dtype="int16")},
    ),
    change("GRU", "gate_exponent -16, expected -15 to 0", attributes={"gate_exponent": -16}),
    change("GRU", "input 1 is shifted by 33 bits", inputs={1: zeros(1, 18, 8, e=-37)}),
    change("GRU", "input 1 has an exponent per channel", inputs={1: zeros(1, 18, 8, e=(1, 2))}),
    change("GRU", "layout 2", attributes={"layout": 2}),
    change(
        "LSTM",
        "the cell state has not the gates' exponent -9",
        outputs={2: act(1, 1, 6, e=-8, dtype="int16")},
    ),
    change(
        "LSTM",
        "the cell state has not the gates' exponent -9",
        inputs={6: act(1, 1, 6, e=-8, dtype="int16")},
    ),
]
ALIASES = {"Sub": "Add", "ReduceMax": "ReduceSum"}


@pytest.mark.parametrize(("operator", "target", "message", "changes"), REFUSED)
def test_the_changed_twin_is_refused(sound, operator, target, message, changes):
    base = ALIASES.get(operator, operator)
    graph = sound(base, **changes, name=operator)
    with pytest.raises(UnsupportedOpError) as caught:
        check_graph(graph, target)
    assert message in str(caught.value)
    assert f"\n  {operator} 'n': " in str(caught.value)
    assert caught.value.path == "built"
    assert f"supported: {operator}: " in caught.value.hint


PASSES = [
    change("Add", "5-D that merges", inputs={0: LONG, 1: LONG}, outputs={0: LONG}),
    change(
        "Mul",
        "negative shift in a short row",
        inputs={0: act(1, 8, e=-1), 1: act(1, 8, e=-2)},
        outputs={0: act(1, 8)},
    ),
    change("Mul", "negative shift", target="c", inputs={0: act(1, 16, e=-1), 1: act(1, 16, e=-2)}),
    change("Div", "constant divisor", inputs={1: const([3])}),
    change(
        "Conv",
        "per channel",
        target="esp32p4",
        inputs={1: zeros(3, 4, 20, e=PER_CHANNEL[::-1])},
        outputs={0: act(1, 9, 20, e=6)},
    ),
    change("Conv", "left shift", target="c", outputs={0: act(1, 9, 20, e=-12)}),
    change(
        "Conv",
        "wide bias of a tail channel",
        inputs={2: const([*[0] * 16, 2**19, 0, 0, 0], dtype="int32")},
    ),
    change(
        "Conv", "wide bias", target="esp32p4", inputs={2: const([2**19, *[0] * 19], dtype="int32")}
    ),
    change(
        "MatMul",
        "layout that is the same",
        attributes={"input1_layout": "native_kn"},
        inputs={1: act(4, 16)},
        outputs={0: act(3, 16)},
    ),
    change(
        "StreamingCache",
        "window of one",
        outputs={0: act(1, 3, 8)},
        attributes={"frame_axis": 2, "window_size": 1},
    ),
    change(
        "Slice",
        "whole flip",
        inputs={1: i64(-1), 2: i64(-(2**63)), 4: i64(-1)},
        outputs={0: act(9, 4)},
    ),
    change("Pad", "zero of another exponent", inputs={2: const(0, e=0)}),
    change(
        "DepthToSpace",
        "CRD",
        inputs={0: act(1, 2, 3, 4)},
        outputs={0: act(1, 4, 6, 1)},
        attributes={"mode": "CRD"},
    ),
    change("PRelu", "rescaled by the vector kernels", outputs={0: act(1, 2, 3, 4, e=-5)}),
    change(
        "Resize",
        "few channels, doubled",
        inputs={0: act(1, 4, 3, 5), 2: f32(1, 1, 2, 2)},
        outputs={0: act(1, 8, 6, 5)},
    ),
    change("Resize", "coarser", outputs={0: act(1, 8, 16, e=-3)}),
    change(
        "RequantizeLinear",
        "8 behind the registers, from few elements",
        inputs={0: act(5, 8)},
        outputs={0: act(5, 8, e=-6, dtype="int16")},
    ),
    change(
        "RequantizeLinear",
        "6 bits to the left",
        inputs={0: act(51)},
        outputs={0: act(51, e=-10)},
    ),
    change("RequantizeLinear", "7 bits, few", inputs={0: act(50)}, outputs={0: act(50, e=-11)}),
    change(
        "Equal",
        "an input too short to hold the output",
        inputs={0: act(3, 6, dtype="int16"), 1: act(1, 6, dtype="int16")},
        outputs={0: ("bool", (3, 6))},
    ),
    change("Resize", "finer on the vector kernels", outputs={0: act(1, 8, 16, e=-5)}),
    change("AveragePool", "ceil_mode without an effect", attributes={"ceil_mode": 1}),
]


@pytest.mark.parametrize(("operator", "target", "message", "changes"), PASSES)
def test_what_only_looks_wrong_passes(sound, operator, target, message, changes):
    check_graph(sound(operator, **changes), target)


def int16_table(sound, size):
    tensors = {0: act(3, dtype="int16")}
    table = (np.zeros(size, "int16"), (-4,))
    return sound("LUT", inputs=tensors, outputs=tensors, table=table)


@pytest.mark.parametrize("size", [2, 3, 5, 257, 2049, 32769, 65536, 65537])
def test_int16_tables_of_a_power_of_two_and_one(sound, size):
    check_graph(int16_table(sound, size), "esp32s3")


@pytest.mark.parametrize("size", [0, 1, 4, 256, 258, 2048, 32768, 32770, 65535, 65538])
def test_int16_tables_of_another_size(sound, size):
    with pytest.raises(UnsupportedOpError, match=rf"has {size} entries, expected 2\*\*k \+ 1"):
        check_graph(int16_table(sound, size), "esp32s3")


def test_a_float_clip_without_a_lower_bound(sound):
    floats = {"inputs": {0: ("float32", (3,)), 1: MISSING, 2: f32(6)}}
    graph = sound("Clip", **floats, outputs={0: ("float32", (3,))})
    with pytest.raises(UnsupportedOpError, match="takes the smallest positive float for it"):
        check_graph(graph, "esp32s3")
    graph = sound(
        "Clip", inputs={0: ("float32", (3,)), 1: f32(0), 2: f32(6)}, outputs={0: ("float32", (3,))}
    )
    check_graph(graph, "esp32s3")


FLAWS = ("PRelu", "RequantizeLinear", "Conv")


@pytest.mark.parametrize(("operator", "target", "message", "changes"), REFUSED)
def test_a_flaw_is_executed_as_the_chip_does(sound, operator, target, message, changes):
    graph = sound(ALIASES.get(operator, operator), **changes, name=operator)
    is_flaw = operator in FLAWS and any(
        text in message
        for text in ("wraps", "multiplies what", "which keeps the low bits", "-bit ")
    )
    if is_flaw:
        check_graph(graph, target, flaws=False)
        return
    with pytest.raises(UnsupportedOpError):
        check_graph(graph, target, flaws=False)


def test_every_flaw_is_exercised():
    with_flaws = {operator.flaws for operator in OPERATORS.values()}
    assert {OPERATORS[name].flaws for name in FLAWS} | {no_rules} == with_flaws


def test_every_rule_is_exercised():
    tested = {ALIASES.get(case.values[0], case.values[0]) for case in REFUSED}
    with_rules = {name: operator.rules for name, operator in OPERATORS.items()}
    assert {with_rules[name] for name in tested} | {no_rules} == set(with_rules.values())


def test_the_chip_flips_after_it_has_taken():
    assert list(chip_indices(10, 2, 8, 3)) == [2, 5]
    assert list(chip_indices(10, -1, -(2**31), -1)) == list(range(9, -1, -1))
    assert list(chip_indices(10, 5, 2, -1)) == [6, 5, 4]
    assert list(chip_indices(10, -1, -(2**31), -2)) == [8, 6, 4, 2, 0]
