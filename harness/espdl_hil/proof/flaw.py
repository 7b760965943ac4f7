"""Breaking an artifact on purpose, for controls that must be noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.espdl import load_graph, patch_initializer

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def flip_weight(data: bytes, changes: Callable[[bytes], bool]) -> bytes:
    """Flip the sign bit of the first weight whose flipping changes an output.

    Args:
        data: A streaming file.
        changes: Whether another build of the file gives other outputs.

    Returns:
        The changed file, of the same length.

    Raises:
        ConfigError: no weight changes any output.
    """
    graph = load_graph(data)
    filters = [node.inputs[1] for node in graph.nodes if node.op_type in WEIGHTED]
    for name in filters:
        tensor = graph.initializers.get(name)
        if tensor is None or tensor.info.dtype.kind != "i":
            continue
        sign = 1 << (8 * tensor.info.dtype.itemsize - 1)
        for index in range(min(tensor.info.size, 8)):
            changed = patch_initializer(data, name, index, sign)
            if changes(changed):
                return changed
    raise ConfigError("no weight of this model changes its outputs")
