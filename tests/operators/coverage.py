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
random single nodes (`tests/operators/kernels`) + nodes of whole networks (`tests/golden`).
Integers are compared exactly, floats to 1e-6 relative (1e-5 where they are sums). Besides, each
family has tests against exact arithmetic of its own, `tests/operators/test_*.py`. A dash: ESP-DL
has no such kernel, and `check_graph` refuses the node. `esp32s3` and `c` round a half up,
`esp32p4` to even.
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
    return "\n".join((INTRODUCTION, *lines, "", NOTES))


def main() -> int:
    """Write the page."""
    TABLE.write_text(table())
    sys.stdout.write(f"{TABLE.relative_to(ROOT)}: {len(OPERATORS)} operators\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
