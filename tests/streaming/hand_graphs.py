"""Graphs by hand, for what the exporter does not make."""

from __future__ import annotations

import numpy as np

from espdl_hil.espdl import Node
from espdl_hil.streaming import Clock, NeutralGraph, analyze


def plan_of(graph, frame_axes, chunk_frames, state=None):
    """The plan of a graph, or the first refusal as an error."""
    return analyze(graph, Clock.of(frame_axes, chunk_frames, state)).plan


class Builder:
    """Collects nodes; every method returns the name of the output.

    Args:
        shapes: Graph inputs by name, in the file's layout.
    """

    def __init__(self, **shapes):
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.nodes, self.constants, self.exponents = [], {}, {}

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, np.int64)
        return name

    def node(self, op_type, *inputs, outputs=1, name=None, **attributes):
        name = name or f"{op_type.lower()}{len(self.nodes)}"
        results = tuple(f"{name}.{index}" for index in range(outputs))
        self.nodes.append(Node(name, op_type, inputs, results, attributes))
        return results[0] if outputs == 1 else results

    def conv(self, x, kernel, channels=8, *, inputs=8, pads=None, stride=1, dilation=1, name=None):
        filters = self.constant(np.zeros((kernel, inputs, channels)))
        pads = (dilation * (kernel - 1), 0) if pads is None else pads
        return self.node(
            "Conv",
            x,
            filters,
            name=name,
            pads=pads,
            strides=(stride,),
            dilations=(dilation,),
            kernel_shape=(kernel,),
            group=1,
        )

    def conv2d(self, x, pads, name=None):
        """A 3 x 3 convolution from 1 to 4 channels."""
        filters = self.constant(np.zeros((3, 3, 1, 4)))
        return self.node(
            "Conv",
            x,
            filters,
            name=name,
            pads=pads,
            strides=(1, 1),
            dilations=(1, 1),
            kernel_shape=(3, 3),
            group=1,
        )

    def slice(self, x, start, end, axis=1, step=1, name=None):
        bounds = [self.constant([value]) for value in (start, end, axis, step)]
        return self.node("Slice", x, *bounds, name=name)

    def pad(self, x, pads, name=None, **attributes):
        return self.node("Pad", x, self.constant(pads), name=name, **attributes)

    def reshape(self, x, shape, name=None):
        return self.node("Reshape", x, self.constant(shape), name=name)

    def graph(self, *outputs):
        return NeutralGraph(
            nodes=tuple(self.nodes),
            constants=self.constants,
            shapes=self.shapes,
            inputs=tuple(self.shapes),
            outputs=outputs,
            exponents=self.exponents,
        )
