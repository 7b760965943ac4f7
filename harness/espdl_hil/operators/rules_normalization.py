"""What ESP-DL asks of normalizations, softmax and recurrent nodes.

Matches: ``dl_module_layer_normalization.hpp``, ``dl_module_rms_normalization.hpp``,
``dl_module_lp_normalization.hpp``, ``dl_module_softmax.hpp``, ``dl_module_gru.hpp``,
``dl_module_lstm.hpp``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from espdl_hil.operators.site import Site

GATES = {"GRU": 3, "LSTM": 4}
GATE_EXPONENTS = range(-15, 1)  # finer ones than int16, or coarser than 1, make no table
MAX_FRAMES = 8192  # of one run; a longer sequence than any chip is given is a damaged length
MAX_DOT_SHIFT = 30  # the portable dot product computes 1 << shift in an int


def softmax(site: Site) -> Iterator[str]:
    """Softmax and LogSoftmax along one axis."""
    rank = len(site.shape)
    if rank:
        site.axis(site.integer("axis", -1), rank)
    return
    yield


def layer_norm(site: Site) -> Iterator[str]:
    """Normalization over the last axes, with a scale and a bias for each element."""
    axis = site.axis(site.integer("axis", -1), len(site.shape))
    inner = math.prod(site.shape[axis:])
    for i in range(1, len(site.node.inputs)):
        if site.has(i) and math.prod(site.shape_of(i)) != inner:
            yield f"input {i} has shape {site.shape_of(i)}, expected {inner} elements"
    epsilon = site.number("epsilon", 1e-5)
    if not 0 < epsilon < math.inf:
        yield f"epsilon {epsilon} is not a positive number"


def lp_norm(site: Site) -> Iterator[str]:
    """Normalization along one axis."""
    if len(site.shape):
        site.axis(site.integer("axis", -1), len(site.shape))
    if site.integer("p", 2) not in (1, 2):
        yield f"p is {site.integer('p')}, the chip computes 2 for all but 1"


def recurrent(site: Site) -> Iterator[str]:
    """GRU and LSTM, one sequence at a time."""
    gates, kind = GATES[site.node.op_type], site.node.op_type
    hidden, (frames, directions, batch, _) = site.integer("hidden_size"), site.results[0]
    if site.integer("layout", 0) not in (0, 1):
        yield f"layout {site.integer('layout')}"
    if frames > MAX_FRAMES:
        yield f"{frames} frames in one run, {MAX_FRAMES} is the most"
    if batch != 1:
        yield f"a batch of {batch} sequences of {frames}, the chip computes one"
    direction = site.text("direction", "forward")
    if direction not in ("forward", "bidirectional"):
        yield f"direction {direction!r}, the chip runs forward"
    if kind == "GRU" and site.integer("linear_before_reset", 0) == 0:
        yield "linear_before_reset is 0, ESP-DL computes PyTorch's GRU only"
    for name in ("activations", "activation_alpha", "activation_beta", "clip", "input_forget"):
        if site.node.attributes.get(name):
            yield f"{name} is set, the chip does not read it"
    expected = {
        1: (directions, gates * hidden, site.shape[2]),
        2: (directions, gates * hidden, hidden),
        3: (directions, 2 * gates * hidden),
        5: (directions, 1, hidden),
        6: (directions, 1, hidden),
    }
    for i, shape in expected.items():
        if site.has(i) and site.shape_of(i) != shape:
            yield f"input {i} has shape {site.shape_of(i)}, expected {shape}"
    if len(site.node.outputs) != len(site.results):
        yield f"{len(site.node.outputs)} outputs, the chip writes {len(site.results)}"
    elif site.quantized:
        yield from _gate_exponents(site)


def _gate_exponents(site: Site) -> Iterator[str]:
    gate = site.integer("gate_exponent", -8)
    if gate not in GATE_EXPONENTS:
        yield f"gate_exponent {gate}, expected -15 to 0"
        return
    state = site.output(1).exponent
    if site.output(0).exponent != state:
        yield "Y and Y_h have different exponents; the chip copies the integers"
    if site.has(5) and site.info(5).exponent != state:
        yield "initial_h and Y_h have different exponents; the chip copies the integers"
    if site.has(3) and set(site.info(3).exponents) != {gate}:
        yield f"the bias has exponent {site.info(3).exponents}, the gates {gate}; the chip adds"
    if site.node.op_type == "LSTM":
        cells = [site.output(2), *([site.info(6)] if site.has(6) else [])]
        if any(cell.exponents != (gate,) for cell in cells):
            yield f"the cell state has not the gates' exponent {gate}; the chip asserts it"
    for i, other in ((1, site.info(0).exponent), (2, state)):
        if len(site.info(i).exponents) != 1:
            yield f"input {i} has an exponent per channel"
        elif abs(gate - other - site.info(i).exponents[0]) > MAX_DOT_SHIFT:
            yield f"input {i} is shifted by {gate - other - site.info(i).exponents[0]} bits"
