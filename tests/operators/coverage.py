"""The page of operators, docs/operators.md: what ESP-DL computes, and how much of it is tested.

Run it to write the page; a test says when the page is stale.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from espdl_hil.espdl import load_graph
from espdl_hil.operators import OPERATORS
from espdl_hil.operators.signature import WIDTHS
from espdl_hil.targets import TARGETS

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "operators.md"
GOLDEN = ROOT / "tests" / "golden"
KERNELS = ROOT / "tests" / "operators" / "kernels" / "vectors.npz"

INTRODUCTION = """\
# Operators

Every operator of ESP-DL 3.3 as the interpreter computes it, and its tests. Written by
`python tests/operators/coverage.py`; do not edit.

A cell counts the vectors that ESP-DL's own C kernels made for this operator, type and target:
random single nodes (`tests/operators/kernels`) + nodes of whole networks (`tests/golden`). What the
chips' vector kernels compute otherwise has vectors of its own (`tests/golden_chip`) and a
sequential model (`tests/operators/sequential.py`).
Integers are compared exactly, floats to 1e-6 relative (1e-5 where they are sums). Besides, each
family has tests against exact arithmetic of its own, `tests/operators/test_*.py`. A dash: ESP-DL
has no such kernel, and `check_graph` refuses the node. `esp32s3` and `c` round a half up,
`esp32p4` to even.
"""
KERNELS_HEADING = """
## What chips compute

Which code of ESP-DL 3.3.9 computes a node on a chip, on what condition (otherwise C), how far
firmware may be from the interpreter at this node, and how sure the semantics of the instructions
are. *C* kernels run wherever this table has no line; float32 is always C. Target `c` is C
throughout, its sums wrap at 32 bits (int8) and 64 bits (int16). C is certain: it was compiled.

SIMD semantics come from executing ESP-DL's assembly; *high*: agree with C including ties on
millions of elements, with the TRM, with QEMU or with others' logs of silicon; *medium*: no second
source for what is named; *low* (shift fields of 32 and more) is refused. Nobody ran a board yet.

Exact means 0 LSB. Elsewhere -ffast-math lets the compiler reorder float operations, which moves
the rounding of an integer output by at most 1 LSB; a simulated devkit is exact there as well.
"""
CODE_BY_SIZE = """
## Code by size

Two kernels of ESP-DL may give different results, and the size of the tensor decides which one runs.
Then a chunk and the whole sequence differ on one chip, though both files are right:

- Mul of int16: the vector kernel shifts the exact product; it runs when the innermost merged
  dimension has 8 elements or more. C rounds the product to float32 first, which is 1 LSB off now
  and then. *(1, T, 4) times (1, T, 4)* is SIMD for the sequence, and C for a chunk of one frame.
- Div: where each row of the innermost merged dimension has one divisor, C multiplies by its
  reciprocal, else it divides each element; now and then these are 1 LSB apart.
  *(1, C, T) by (1, C, 1)* multiplies for the sequence, and divides for a chunk of one frame.
- MatMul with time in the columns of a computed operand: full blocks of columns (16 at int8, 8 at
  int16) are summed in lanes, the rest in 40 bits. It shows where a lane saturates.

RequantizeLinear, too, leaves 50 elements and fewer to C, which gives the same wherever the vector
kernel is right. Each element that this changes is predicted and told on the row (`chip: 3 elements,
1 LSB, Mul '/x', SIMD only offline`), with what avoids it. The row fails with the cause *known chip
behaviour*, unless the model declares `chip_rounding="accept"`: then the stream has to give what is
predicted, to the element.
"""
CHIP_FAULTS = """
## What chips compute wrongly

The quantize worker exports around RequantizeLinear, nearest Resize of few channels and the
comparison, in all files of a model alike, and the row's notes say so: channels are padded before
the node and sliced behind it, a shift is made in steps, an input is written out. The rest
`check_graph` refuses, in the offline and in each streaming file, and says what to change. Where the
result is known, the interpreter computes it if asked to execute such a file; where it is not, the
interpreter refuses too.

Known, and so executed:

- RequantizeLinear of more than 50 elements to a finer exponent: int8 to int8 on `esp32s3` negates
  from 7 bits on and clears from 8; int16 to int8 on `esp32s3` wraps products at 20 bits from 5 bits
  on; others, but int16 to int16, negate at 15 bits and clear from 16.
- PRelu of int8 to an output 7 bits finer or more: what is positive is negated or cleared.
- A bias that is wider than its lane: the low bits are kept.

Not known to the last bit:

- RequantizeLinear from int8 to int16, more than 50 elements, 16 n + 8: the last 8 outputs are
  never written.
- Resize nearest of fewer than 16 channels, but 2 x 2: garbage.
- Resize nearest to a coarser exponent on `esp32p4`: rounds as the kernel before did, else floors.
- A comparison of int16 with an input that is repeated twice at most: the output overwrites it.
- int8 products shifted right by 32 (`esp32p4`), 33 (`esp32s3`) or more: the shift field wraps.
- Mul, Conv, Gemm and MatMul shifted left: the vector kernels cannot.
"""
NOTES = """\
ReverseSequence of float32 exists in ESP-DL but swaps elements through an int; it is refused.
"""

Counts = Counter[tuple[str, str, str]]
"""Vectors by (operator, quant_type, target)."""


def kernel_counts() -> Counts:
    """Single-node vectors."""
    with np.load(KERNELS) as archive:
        cases = json.loads(archive["index"].tobytes())
    counts: Counts = Counter()
    for case in cases:
        targets = ["esp32p4"] if case["rounding"] == "half_even" else ["esp32s3", "c"]
        for target in targets:
            if target == "c" or not case["portable_only"]:
                counts[case["op"], case["width"], target] += 1
    return counts


def golden_counts() -> Counts:
    """Nodes of the golden networks."""
    counts: Counts = Counter()
    for path in sorted(GOLDEN.glob("*.npz")):
        with np.load(path) as archive:
            index = json.loads(archive["index"].tobytes())
            key = next(key for key, name in index["tensors"].items() if name == "model")
            graph = load_graph(archive[key].tobytes())
        for node in graph.nodes:
            counts[node.op_type, str(node.attributes["quant_type"]), index["target"]] += 1
    return counts


def table() -> str:
    """The page, Markdown."""
    kernels, golden = kernel_counts(), golden_counts()
    exported = dict.fromkeys(target.exporter for target in TARGETS.values())
    columns = [(width, target) for width in WIDTHS for target in exported]
    names = [f"{WIDTHS[width]} {target}" for width, target in columns]
    lines = ["| operator | " + " | ".join(names) + " | limits |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for name, operator in sorted(OPERATORS.items()):
        cells = []
        for width, target in columns:
            single, network = kernels[name, width, target], golden[name, width, target]
            cells.append(f"{single} + {network}" if single + network else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {operator.limits} |")
    pages = (*lines, KERNELS_HEADING, kernel_table(), CODE_BY_SIZE, CHIP_FAULTS, NOTES)
    return "\n".join((INTRODUCTION, *pages))


def kernel_table() -> str:
    """Which code a chip computes each operator with, Markdown."""
    lines = ["| operator | type | chip | code | condition | firmware may differ by | how sure |"]
    lines.append("|---" * 7 + "|")
    for name, operator in sorted(OPERATORS.items()):
        lines += [
            f"| {name} | {'; '.join(WIDTHS[width] for width in kind.widths)} | "
            f"{'both' if len(kind.targets) > 1 else kind.targets[0]} | {kind.code} | {kind.when} | "
            f"{f'{kind.float_step_lsb} LSB' if kind.float_step_lsb else 'exact'} | "
            f"{kind.confidence} |"
            for kind in operator.arithmetic
        ]
    return "\n".join(lines)


def main() -> int:
    """Write the page."""
    TABLE.write_text(table())
    sys.stdout.write(f"{TABLE.relative_to(ROOT)}: {len(OPERATORS)} operators\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
