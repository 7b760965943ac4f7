"""Breaking an artifact on purpose, for controls that must be noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.errors import ConfigError
from espdl_hil.espdl import patch_initializer

if TYPE_CHECKING:
    from espdl_hil.proof.expected import Expected

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def flip_weight(expected: Expected) -> bytes:
    """Flip the sign bit of the first weight whose flipping changes an output.

    Args:
        expected: Gives the streaming file and its stimulus.

    Returns:
        The changed streaming file, of the same length.

    Raises:
        ConfigError: no weight of the model changes any output of its stimulus.
    """
    data = expected.artifacts.streaming[expected.case.chunk_frames].read_bytes()
    graph = expected.streaming_graph
    filters = [node.inputs[1] for node in graph.nodes if node.op_type in WEIGHTED]
    for name in filters:
        tensor = graph.initializers.get(name)
        if tensor is None or tensor.info.dtype.kind != "i":
            continue
        sign = 1 << (8 * tensor.info.dtype.itemsize - 1)
        for index in range(min(tensor.info.size, 8)):
            changed = patch_initializer(data, name, index, sign)
            if _differs(expected, changed):
                return changed
    raise ConfigError(f"{expected.case.id}: no weight of this model changes its outputs")


def _differs(expected: Expected, data: bytes) -> bool:
    outputs = expected.stream_of(data)
    return any(
        not np.array_equal(step[name], before[name])
        for step, before in zip(outputs, expected.stream, strict=True)
        for name in before
    )
