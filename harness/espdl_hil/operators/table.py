"""The operator table of ESP-DL 3.3: which types each operator takes. Computes nothing.

Matches: ``dl_module_creator.hpp`` for the names; each ``dl_module_*.hpp`` for the types.
"""

from __future__ import annotations

from dataclasses import dataclass

WIDTHS = {"S8": "int8", "S16": "int16", "F32": "float32"}  # quant_type of a node -> NumPy name
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
CASTS = ("DequantizeLinear", "QuantizeLinear", "RequantizeLinear")
PICKS = ("ReduceMax", "ReduceMin")  # reductions that return one of their inputs
REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
ACTIVATIONS = (
    "Elu",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Relu",
    "Sigmoid",
    "Sqrt",
    "Swish",
    "Tanh",
)
ACCUMULATORS = {"S8": "int32", "S16": "int64"}  # type of a bias


@dataclass(frozen=True)
class Role:
    """What an operator expects of one input or output.

    Attributes:
        dtypes: NumPy names by quant_type.
        constant: ESP-DL reads it at load, so it must be stored in the file.
        optional: It may be missing.
        weight: Its exponents are the operator's own affair.
    """

    dtypes: dict[str, tuple[str, ...]]
    constant: bool = False
    optional: bool = False
    weight: bool = False


@dataclass(frozen=True)
class Operator:
    """What ESP-DL takes of one operator.

    Attributes:
        widths: quant_type values that have a kernel.
        inputs: By position.
        outputs: By position.
        variadic: The last input may repeat.
        fans_out: The last output may repeat.
        by_tensor: The kernel follows the tensor's type and not the node's quant_type.
        copies: Integers pass unchanged, so all activations must have one exponent.
        limits: What is supported, in words, for messages and documentation.
    """

    widths: tuple[str, ...]
    inputs: tuple[Role, ...]
    outputs: tuple[Role, ...]
    variadic: bool = False
    fans_out: bool = False
    by_tensor: bool = False
    copies: bool = False
    limits: str = ""


def _same(**changes: bool) -> Role:
    return Role({width: (name,) for width, name in WIDTHS.items()}, **changes)


def _fixed(*names: str, **changes: bool) -> Role:
    return Role(dict.fromkeys(WIDTHS, names), **changes)


_T = _same()
_T_OPTIONAL = _same(optional=True)
_T_WEIGHT = _same(constant=True, weight=True)
_BIAS = Role(
    {width: (name,) for width, name in ACCUMULATORS.items()},
    constant=True,
    optional=True,
    weight=True,
)
_NUMBERS = _fixed("int8", "int16", "float32")
_INTEGERS = _fixed("int64", constant=True)
_INTEGERS_OPTIONAL = _fixed("int64", constant=True, optional=True)
_FLOATS_OPTIONAL = _fixed("float32", constant=True, optional=True)
_FLOAT = _fixed("float32")
_BOOL = _fixed("bool")
_GATE = Role({"S8": ("int16",), "S16": ("int16",), "F32": ("float32",)}, weight=True)
_GATE_BIAS = Role(_GATE.dtypes, constant=True, optional=True, weight=True)
_GATE_STATE = Role(_GATE.dtypes, optional=True, weight=True)
_ANY_UNREAD = _fixed("int8", "int16", "float32", optional=True, weight=True)
_NEVER = _fixed(optional=True)

_INT = ("S8", "S16")
_ALL = ("S8", "S16", "F32")
_BROADCAST = "up to 4 dimensions once axes that broadcast alike are merged"
_ONE_PICTURE = "(1, W, C) or (1, H, W, C)"

_ACTIVATION = Operator(_ALL, (_T,), (_T,), limits="a look-up table for int8, or computed in float")
_BINARY = Operator(_ALL, (_T, _T), (_T,), limits=_BROADCAST)
_COMPARE = Operator(_INT, (_T, _T), (_BOOL,), limits=_BROADCAST)
_ALIGNED = Operator(_ALL, (_T, _T), (_T,), copies=True, limits=f"{_BROADCAST}; one exponent")
_REDUCE = Operator(_ALL, (_T, _INTEGERS_OPTIONAL), (_T,), limits="up to 4 merged dimensions")
_PICK = Operator(
    _ALL, (_T, _INTEGERS_OPTIONAL), (_T,), copies=True, limits="up to 4 merged dimensions"
)
_REQUANTIZE = Operator(_ALL, (_NUMBERS, _ANY_UNREAD, _ANY_UNREAD), (_NUMBERS,), by_tensor=True)


def _move(*inputs: Role, limits: str = "") -> Operator:
    return Operator(
        _ALL, (_NUMBERS, *inputs), (_NUMBERS,), by_tensor=True, copies=True, limits=limits
    )


def _move_by_width(*inputs: Role, limits: str = "") -> Operator:
    return Operator(_ALL, (_T, *inputs), (_T,), copies=True, limits=limits)


OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(("Add", "Sub"), _ALIGNED),
    **dict.fromkeys(("Div", "Mod", "Mul", "Pow"), _BINARY),
    **dict.fromkeys(COMPARISONS, _COMPARE),
    **dict.fromkeys(ACTIVATIONS, _ACTIVATION),
    **dict.fromkeys(REDUCTIONS, _REDUCE),
    **dict.fromkeys(PICKS, _PICK),
    **dict.fromkeys(CASTS, _REQUANTIZE),
    **dict.fromkeys(
        ("Gelu", "LUT"), Operator(_INT, (_T,), (_T,), limits="a look-up table; never float32")
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), Operator(_ALL, (_T,), (_FLOAT,))),
    **dict.fromkeys(("Flatten", "Identity", "StreamingCache", "Transpose"), _move()),
    **dict.fromkeys(("Squeeze",), _move(_INTEGERS_OPTIONAL)),
    **dict.fromkeys(("Reshape", "Unsqueeze"), _move(_INTEGERS)),
    "AveragePool": Operator(_ALL, (_T,), (_T,), limits=f"{_ONE_PICTURE}, no dilation"),
    "Clip": Operator(_ALL, (_T, _T_OPTIONAL, _T_OPTIONAL), (_T,)),
    "Concat": Operator(_ALL, (_T,), (_T,), variadic=True, copies=True),
    "Conv": Operator(
        _INT,
        (_T, _T_WEIGHT, _BIAS),
        (_T,),
        limits=f"{_ONE_PICTURE}, group 1 or depthwise, Relu or nothing behind it; exponents per "
        "channel on esp32p4",
    ),
    "DepthToSpace": _move_by_width(limits="(N, H, W, C)"),
    "GRU": Operator(
        _ALL,
        (_T, _T_WEIGHT, _T_WEIGHT, _GATE_BIAS, _NEVER, _T_OPTIONAL),
        (_T, _T),
        limits="batch 1, forward or bidirectional, linear_before_reset",
    ),
    "Gather": _move(_fixed("int32", "int64", constant=True), limits="indices that are constant"),
    "Gemm": Operator(_INT, (_T, _T_WEIGHT, _BIAS), (_T,), limits="no transA, transB, alpha, beta"),
    "GlobalAveragePool": Operator(_ALL, (_T,), (_T,), limits=_ONE_PICTURE),
    "InsertZeros": _move_by_width(limits="(N, W, C) or (N, H, W, C)"),
    "LSTM": Operator(
        _ALL,
        (_T, _T_WEIGHT, _T_WEIGHT, _GATE_BIAS, _NEVER, _T_OPTIONAL, _GATE_STATE, _NEVER),
        (_T, _T, _GATE),
        limits="batch 1, forward or bidirectional",
    ),
    "LayerNormalization": Operator(
        _ALL, (_T, _T_OPTIONAL, _T_OPTIONAL), (_T, _T, _T), limits="over the last axes"
    ),
    "LpNormalization": Operator(_ALL, (_T,), (_T,), limits="p 1 or 2"),
    "MatMul": Operator(_INT, (_T, _T), (_T,), limits="1 to 4 dimensions, second operand packed"),
    "MaxPool": Operator(_INT, (_T,), (_T,), copies=True, limits=f"{_ONE_PICTURE}, no dilation"),
    "Neg": Operator(_ALL, (_T,), (_T,), copies=True),
    "PRelu": Operator(
        _ALL, (_T, _T_WEIGHT), (_T,), limits="(1, H, W, C) with a slope a channel, or a table"
    ),
    "Pad": _move(
        _INTEGERS,
        _fixed("int8", "int16", "float32", constant=True, optional=True, weight=True),
        limits="constant, edge or reflect, up to 4 dimensions",
    ),
    "RMSNormalization": Operator(
        _ALL, (_T, _fixed("float32", constant=True)), (_T,), limits="over the last axes"
    ),
    "Resize": Operator(
        ("S8",),
        (_T, _fixed("float32", optional=True), _FLOATS_OPTIONAL, _INTEGERS_OPTIONAL),
        (_T,),
        limits=f"{_ONE_PICTURE}, nearest or linear",
    ),
    "ReverseSequence": _move_by_width(_INTEGERS, limits="batch and time are the first two axes"),
    "ScatterND": Operator(_ALL, (_T, _INTEGERS, _T), (_T,), copies=True),
    "Slice": _move(
        *[_fixed("int32", "int64", constant=True)] * 2,
        *[_fixed("int32", "int64", constant=True, optional=True)] * 2,
    ),
    "SpaceToDepth": _move_by_width(limits="(N, H, W, C)"),
    "Split": Operator(
        _ALL, (_NUMBERS, _INTEGERS), (_NUMBERS,), fans_out=True, by_tensor=True, copies=True
    ),
}
