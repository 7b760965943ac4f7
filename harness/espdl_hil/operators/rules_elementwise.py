"""What ESP-DL asks of element-wise and activation nodes.

Matches: ``dl_base_elemwise.cpp``, ``dl_base_mul.cpp``, ``dl_base_div.cpp``, ``dl_base_lut.cpp``,
``dl_module_clip.hpp``, ``dl_module_prelu.hpp``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from espdl_hil.espdl.weights import VECTOR_BYTES
from espdl_hil.operators.shapes import broadcast
from espdl_hil.operators.table import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.espdl.graph import Shape
    from espdl_hil.operators.site import Site

MAX_LOOPS = 4  # nested loops of the element-wise and Reduce kernels
TABLE_ONLY = ("LUT", "Gelu")
TABLE_OPERATORS = (*ACTIVATIONS, *TABLE_ONLY)
TABLE_SIZE_S8 = 256
INT16_STEPS = 65536
MAX_SCALE_BITS = 6  # the int8 vector kernels multiply by 2**bits, as an int8
MAX_PRODUCT_SHIFT = 31


def merged_loops(first: Shape, second: Shape) -> Shape:
    """Lengths of the loops that an element-wise kernel runs, outermost first.

    Neighbouring axes become one loop when both inputs have them, or the same one lacks them.

    Args:
        first: Shape of one input.
        second: Shape of the other; they broadcast.
    """
    shape = broadcast(first, second)
    a = (1,) * (len(shape) - len(first)) + first
    b = (1,) * (len(shape) - len(second)) + second
    loops: list[int] = []
    kinds: list[tuple[bool, bool]] = []
    for length, x, y in zip(shape, a, b, strict=True):
        kind = (x == length, y == length)
        if length == 1 and loops:
            continue
        if kinds and (kinds[-1] == kind or loops[-1] == 1):
            loops[-1] *= length
            kinds[-1] = kind
        else:
            loops.append(length)
            kinds.append(kind)
    return tuple(loops)


def binary(site: Site) -> Iterator[str]:
    """Two inputs that broadcast."""
    loops = merged_loops(site.shape_of(0), site.shape_of(1))
    if not loops:
        yield "two scalars: the chip has no loop for them and computes nothing"
    if len(loops) > MAX_LOOPS:
        yield f"broadcasting takes {len(loops)} loops, the chip asserts that it is {MAX_LOOPS}"


def compare(site: Site) -> Iterator[str]:
    """Comparisons look at the integers alone."""
    yield from binary(site)
    if site.info(0).exponents != site.info(1).exponents:
        yield (
            f"the inputs have exponents {site.info(0).exponents} and {site.info(1).exponents}; "
            "the chip compares the integers and ignores them"
        )


def mul(site: Site) -> Iterator[str]:
    """Products are shifted right by the vector kernels."""
    yield from binary(site)
    if not site.quantized or not site.target.packed_filters:
        return
    shift = site.output().exponent - site.info(0).exponent - site.info(1).exponent
    loops = merged_loops(site.shape_of(0), site.shape_of(1))
    lanes = VECTOR_BYTES // site.info(0).dtype.itemsize
    if shift < 0 and loops and loops[-1] >= lanes:
        yield (
            f"output exponent minus input exponents is {shift}: the product would be shifted "
            f"left, which the vector kernels of {site.target.name} cannot do"
        )


def div(site: Site) -> Iterator[str]:
    """An int8 quotient with a single operand becomes a table at the first run."""
    yield from binary(site)
    if site.width != "S8":
        return
    # Matches: create_div_lut, which looks for a dividend first
    index = next((i for i in (0, 1) if math.prod(site.shape_of(i)) == 1), None)
    if index is None:
        return
    operand = site.stored(index)
    if operand is None:
        yield (
            f"input {index} is a single computed element; the chip makes a table of the first "
            "run's value and uses it ever after"
        )
    elif operand.raw[0] == 0:
        yield f"input {index} is the constant 0"


def mod(site: Site) -> Iterator[str]:
    """C-style remainder."""
    yield from binary(site)
    if site.integer("fmod", 1) != 1:
        yield "fmod is 0, the chip takes the sign of the dividend as fmod 1 does"


def table(site: Site) -> Iterator[str]:
    """Activations that may have a look-up table."""
    name = site.node.attributes.get("lut")
    must = site.node.op_type in TABLE_ONLY
    if name is None or not (must or site.width == "S8"):
        if must:
            yield "there is no look-up table"
        return
    stored = site.graph.initializers.get(site.text("lut"))
    if stored is None:
        yield f"the look-up table {name!r} is not in the file"
        return
    if stored.info.dtype != site.output().dtype:
        yield f"the look-up table is {stored.info.dtype}, the output {site.output().dtype}"
    if stored.info.exponents != site.output().exponents:
        yield (
            f"the look-up table has exponent {stored.info.exponents}, the output "
            f"{site.output().exponents}; the chip asserts that they are equal"
        )
    size = stored.info.size
    if site.width == "S8" and size != TABLE_SIZE_S8:
        yield f"the look-up table has {size} entries, expected {TABLE_SIZE_S8}"
    if site.width == "S16" and not _is_int16_table(size):
        yield f"the look-up table has {size} entries, expected 2**k + 1"


def _is_int16_table(size: int) -> bool:
    if size < 2:
        return False
    step = INT16_STEPS // (size - 1)
    if step == 1:
        return size >= INT16_STEPS
    return step > 1 and step & (step - 1) == 0 and step * (size - 1) == INT16_STEPS


def clip(site: Site) -> Iterator[str]:
    """Bounds are compared as integers."""
    yield from table(site)
    if site.width == "S8" and "lut" in site.node.attributes:
        return
    count = len(site.node.inputs)
    if site.width == "F32" and count > 1 and not site.has(1):
        yield "there is no lower bound; the chip takes the smallest positive float for it"
    for i in range(1, count):
        if not site.has(i):
            continue
        if site.stored(i) is not None and not site.info(i).size:
            yield f"bound {i} is empty"
        if site.info(i).exponents != site.info(0).exponents:
            yield (
                f"bound {i} has exponent {site.info(i).exponents}, the input "
                f"{site.info(0).exponents}; the chip compares the integers"
            )


def prelu(site: Site) -> Iterator[str]:
    """A slope for each channel of one picture; or a table."""
    yield from table(site)
    if site.width == "S8" and "lut" in site.node.attributes:
        return
    if len(site.shape) != 4:
        yield f"input {site.shape}, ESP-DL takes (N, H, W, C)"
        return
    slope = site.shape_of(1)
    if len(slope) != 3 or slope[1:] != (1, 1):
        yield f"a slope of shape {slope}, the chip asserts (C, 1, 1)"
    elif slope[0] != site.shape[3] and (slope[0] != 1 or site.width == "S8"):
        yield f"{slope[0]} slopes for {site.shape[3]} channels"
    if site.quantized:
        yield from _prelu_exponents(site)


def _prelu_exponents(site: Site) -> Iterator[str]:
    """Only the int8 vector kernels rescale what is not negative."""
    finer = site.info(0).exponent - site.output().exponent
    rescales = site.width == "S8" and site.target.packed_filters
    if finer and not rescales:
        yield "input and output exponents differ; the chip copies what is not negative"
    if finer > MAX_SCALE_BITS:
        yield f"the output is {finer} bits finer than the input, {MAX_SCALE_BITS} is the most"
    shift = -finer - site.info(1).exponent
    low = 0 if rescales else -MAX_SCALE_BITS
    if not low <= shift <= MAX_PRODUCT_SHIFT:
        yield f"the product is shifted right by {shift} bits, {low} to {MAX_PRODUCT_SHIFT} work"
