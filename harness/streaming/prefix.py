"""The offline model of a prefix: what each chunk of a model with a tail is compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from harness.espdl import Tensor

if TYPE_CHECKING:
    from harness.espdl import Graph
    from harness.streaming.plan import StreamingPlan


def any_length(offline: Graph, plan: StreamingPlan) -> Graph:
    """Make an offline graph run at other lengths than its own.

    Reshape and Slice constants that name its frame count are replaced by ones that mean the
    same at that length; nothing else changes.

    Args:
        offline: The offline file of the planned model.
        plan: Any plan of it, whatever the chunk size.

    Returns:
        A graph for the interpreter, to be loaded with ``input_shapes``.
    """
    nodes = {node.name: node for node in offline.nodes}
    constants = dict(offline.initializers)
    for edit in plan.offline_edits:
        node = nodes[edit.node]
        old = constants[node.inputs[edit.input_index]]
        name = f"{node.name}/{edit.input_index}"  # of its own: others may share the old one
        raw = np.array(edit.values, old.info.dtype)
        constants[name] = Tensor(replace(old.info, name=name), raw)
        inputs = list(node.inputs)
        inputs[edit.input_index] = name
        nodes[node.name] = replace(node, inputs=tuple(inputs))
    return replace(
        offline, nodes=tuple(nodes[node.name] for node in offline.nodes), initializers=constants
    )
