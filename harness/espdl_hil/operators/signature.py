"""What an operator is here: types, shapes, rules and a kernel, in one value. Names no operator.

Matches: ``dl_module_*.hpp`` for the types that each module reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, TypeAlias

from espdl_hil.operators.kernel import Kernel
from espdl_hil.operators.node import BoundNode, NodeView, PlacedNode

if TYPE_CHECKING:
    from espdl_hil.espdl.graph import Shape
    from espdl_hil.operators.detour import Detour

WIDTHS = {"S8": "int8", "S16": "int16", "F32": "float32"}  # quant_type of a node -> NumPy name
INTEGER_WIDTHS = ("S8", "S16")
STEP_VISITS = 1024  # what a call of NumPy takes, in multiply-accumulates

Shapes: TypeAlias = Callable[[NodeView], "list[Shape]"]
"""Shapes of the outputs, in order; may raise `NodeProblem`."""
Rules: TypeAlias = Callable[[PlacedNode], Iterator[str]]
"""Yields why ESP-DL cannot run the node, or runs it wrongly; may raise `NodeProblem`."""
Builder: TypeAlias = Callable[[BoundNode], Kernel | None]
"""Prepares a node. Returns None when the output is a view of an input and nothing runs."""
BySize: TypeAlias = Callable[[PlacedNode], str]
"""Names the code that computes the node; empty where no other code gives other results."""
WayAround: TypeAlias = "Callable[[PlacedNode], Detour | None]"
"""Says what would mean the same and be right, where the node itself would be wrong."""
Work: TypeAlias = "Callable[[NodeView, Shape], int]"
"""Counts what one run takes, from the node and the shape of its first output."""


@dataclass(frozen=True)
class TensorRole:
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


def fixed(*names: str, **changes: bool) -> TensorRole:
    """The same types at every width."""
    return TensorRole(dict.fromkeys(WIDTHS, names), **changes)


def of_width(**changes: bool) -> TensorRole:
    """The type that quant_type names."""
    return TensorRole({width: (name,) for width, name in WIDTHS.items()}, **changes)


TENSOR = of_width()
OPTIONAL = of_width(optional=True)
WEIGHT = of_width(constant=True, weight=True)
BIAS = TensorRole({"S8": ("int32",), "S16": ("int64",)}, constant=True, optional=True, weight=True)
NUMBERS = fixed("int8", "int16", "float32")
LENGTHS = fixed("int64", constant=True)
LENGTHS_OPTIONAL = fixed("int64", constant=True, optional=True)
INDICES = fixed("int32", "int64", constant=True)
INDICES_OPTIONAL = fixed("int32", "int64", constant=True, optional=True)


def same_shape(view: NodeView) -> list[Shape]:
    """The output has the first input's shape."""
    return [view.shape]


def no_rules(_: PlacedNode) -> Iterator[str]:
    """Types, shapes and exponents are all that ESP-DL asks."""
    return iter(())


@dataclass(frozen=True)
class Arithmetic:
    """Which code of a chip computes a node, and how surely the interpreter does the same.

    Attributes:
        code: ``SIMD``, the vector kernels; or ``C``.
        when: What the node must be for that; otherwise C.
        confidence: How sure the semantics of the instructions are: ``high``, ``medium``, ``low``.
        float_step_lsb: How far an output may be from the interpreter's. ESP-DL is built with
            -ffast-math, so a compiler may reorder float operations, fuse them, or divide by a
            reciprocal: a few parts in 2**24, where an output is at most 2**15, moves a rounding to
            the next integer and no further.
        widths: quant_type values that this holds for.
        targets: Chips that this holds for.
        mode: The node's attribute ``mode`` that this holds for; empty for any.
    """

    code: str
    when: str = ""
    _: KW_ONLY
    confidence: str = "high"
    float_step_lsb: int = 0
    widths: tuple[str, ...] = INTEGER_WIDTHS
    targets: tuple[str, ...] = ("esp32s3", "esp32p4")
    mode: str = ""


C_FLOAT_S16 = Arithmetic("C", float_step_lsb=1, widths=("S16",))
SIMD = Arithmetic("SIMD")


@dataclass(frozen=True)
class Operator:
    """All that is known of one operator but how it treats time (``streaming/transfer``).

    Attributes:
        build: Prepares the kernel, exact to the target's.
        shapes: Shape inference, as the module's ``get_output_shape``.
        rules: What the chip refuses or gets wrong beyond types, shapes and exponents.
        flaws: What the chip computes otherwise than the model means, and the kernel with it:
            exported files are refused for it, and executed.
        detour: The way around what *rules* and *flaws* refuse; the quantize worker takes it.
        inputs: By position.
        outputs: By position.
        widths: quant_type values that have a kernel.
        limits: What is supported, in words, for messages and documentation.
        variadic: The last input may repeat.
        fans_out: The last output may repeat.
        by_tensor: The kernel follows the tensor's type and not the node's quant_type.
        arithmetic: What chips compute it with; the first that holds, else C and exact.
        by_size: Which code computes the node, where its size decides that and the results differ:
            a chunk and the whole sequence may then differ on one chip.
        copies: Integers pass unchanged, so all activations must have one exponent.
        macs: Multiply-accumulates of one run.
        visits: Elements that the windows of one run visit without a multiplication, and
            `STEP_VISITS` for each turn of a loop in Python.
        scratch: Bytes that the kernel keeps beside the node's tensors and constants.
    """

    build: Builder
    shapes: Shapes = same_shape
    rules: Rules = no_rules
    _: KW_ONLY
    flaws: Rules = no_rules
    detour: WayAround = lambda _: None
    inputs: tuple[TensorRole, ...] = (TENSOR,)
    outputs: tuple[TensorRole, ...] = (TENSOR,)
    widths: tuple[str, ...] = tuple(WIDTHS)
    limits: str = ""
    variadic: bool = False
    fans_out: bool = False
    by_tensor: bool = False
    copies: bool = False
    arithmetic: tuple[Arithmetic, ...] = ()
    by_size: BySize = lambda _: ""
    macs: Work = lambda *_: 0
    visits: Work = lambda *_: 0
    scratch: Work = lambda *_: 0


def moves(
    build: Builder,
    shapes: Shapes = same_shape,
    rules: Rules = no_rules,
    *,
    inputs: tuple[TensorRole, ...] = (),
    limits: str = "",
) -> Operator:
    """An operator that moves elements of any type; *inputs* are those behind the first."""
    return Operator(
        build,
        shapes,
        rules,
        inputs=(NUMBERS, *inputs),
        outputs=(NUMBERS,),
        limits=limits,
        by_tensor=True,
        copies=True,
    )
