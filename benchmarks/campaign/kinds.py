"""Kinds of faults: what each breaks on a model, and the cause that a diagnosis must name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from espdl_hil.diagnosis import Cause
from espdl_hil.simulator import faults
from espdl_hil.simulator.faults.sums import SUMMING, usual_mode
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from campaign.subjects import Subject
    from espdl_hil.compare import Tensors
    from espdl_hil.espdl import Graph, Node

Random = np.random.Generator
T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """One instance of a kind.

    Attributes:
        faults: Of the device.
        passing: They are gone when the stream is run again.
        order: Chunks as they are sent, by number; None as they should be.
        before: What runs on the same model before.
        reset: Whether the stream begins with a reset.
    """

    faults: tuple[faults.Fault, ...] = ()
    passing: bool = False
    order: tuple[int, ...] | None = None
    before: Sequence[Tensors] = ()
    reset: bool = True


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: A few words.
        area: ``artifact``, ``firmware``, ``state``, ``order``, ``buffer`` or ``arithmetic``.
        cause: What a diagnosis must say.
        draw: Makes an instance; raises ``NoPlace`` if the subject has nothing to break.
    """

    name: str
    area: str
    cause: Cause
    draw: Callable[[Subject, Random], Trial]


class NoPlace(Exception):  # noqa: N818 - nothing is wrong, the fault has no place here
    """The subject has nothing that this kind of fault could break."""


KINDS: list[Kind] = []
Draw = TypeVar("Draw", bound="Callable[[Subject, Random], Trial | faults.Fault]")


def kind(name: str, area: str, cause: Cause) -> Callable[[Draw], Draw]:
    """Add the decorated function to ``KINDS``; it may return a fault alone instead of a trial."""

    def note(draw: Draw) -> Draw:
        def trial(subject: Subject, rng: Random) -> Trial:
            drawn = draw(subject, rng)
            return drawn if isinstance(drawn, Trial) else Trial((drawn,))

        KINDS.append(Kind(name, area, cause, trial))
        return draw

    return note


# -- places ------------------------------------------------------------------------------


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of *items*.

    Raises:
        NoPlace: there is none.
    """
    if not items:
        raise NoPlace
    return items[int(rng.integers(len(items)))]


def nodes_of(graph: Graph, *op_types: str) -> list[Node]:
    """Nodes of some operators with an integer result."""
    found = (n for n in graph.nodes if n.op_type in op_types)
    return [n for n in found if graph.value_info[n.outputs[0]].dtype.kind == "i"]


def filter_of(subject: Subject, rng: Random) -> str:
    """Name of a packed filter."""
    return pick(rng, nodes_of(subject.graph, "Conv")).inputs[1]


def bias_of(subject: Subject, rng: Random) -> str:
    """Name of a bias."""
    nodes = nodes_of(subject.graph, "Conv")
    return pick(rng, [n.inputs[2] for n in nodes if len(n.inputs) > 2 and n.inputs[2]])


def size_of(subject: Subject, name: str) -> int:
    """Elements of a constant."""
    return subject.graph.initializers[name].raw.size


def step_of(subject: Subject, rng: Random, first: int = 0) -> int:
    """A step, from *first* on."""
    return int(rng.integers(first, len(subject.chunks)))


def output_of(subject: Subject, rng: Random) -> str:
    """Name of a graph output that feeds no state."""
    states = subject.plan.state.values()
    return pick(rng, [i.name for i in subject.graph.outputs if i.name not in states])


def run_of(size: int, rng: Random) -> tuple[int, int]:
    """Start and length of a run of elements, 16 to half of them."""
    shortest = min(16, size)
    length = int(rng.integers(shortest, max(size // 2, shortest) + 1))
    return int(rng.integers(size - length + 1)), length


def summing(subject: Subject) -> tuple[str, ...]:
    """Names of all summing nodes."""
    return tuple(n.name for n in nodes_of(subject.graph, *SUMMING))


# -- artifact ----------------------------------------------------------------------------


@kind("weight bit", "artifact", Cause.WEIGHTS)
def weight_bit(subject: Subject, rng: Random) -> faults.Fault:
    name = filter_of(subject, rng)
    bit = int(rng.integers(2, 8 * subject.graph.initializers[name].raw.dtype.itemsize))
    return faults.WeightBit(name, int(rng.integers(size_of(subject, name))), bit)


@kind("weight word", "artifact", Cause.WEIGHTS)
def weight_word(subject: Subject, rng: Random) -> faults.Fault:
    name = filter_of(subject, rng)
    count = 4 // subject.graph.initializers[name].raw.dtype.itemsize
    start = int(rng.integers(size_of(subject, name) // count)) * count
    return faults.WeightWord(name, start, count, ones=bool(rng.integers(2)))


@kind("bias bit", "artifact", Cause.WEIGHTS)
def bias_bit(subject: Subject, rng: Random) -> faults.Fault:
    name = bias_of(subject, rng)
    bit = int(rng.integers(8, 24))
    return faults.WeightBit(name, int(rng.integers(size_of(subject, name))), bit)


@kind("bias left out", "artifact", Cause.WEIGHTS)
def bias_left_out(subject: Subject, rng: Random) -> faults.Fault:
    return faults.BiasLeftOut(bias_of(subject, rng))


@kind("packed for target c", "artifact", Cause.WEIGHTS)
def packed_for_c(subject: Subject, rng: Random) -> faults.Fault:
    return faults.PackedForC(filter_of(subject, rng))


def table_node(subject: Subject, rng: Random) -> tuple[str, int]:
    """A node with a look-up table, and its entries."""
    node = pick(rng, [n for n in subject.graph.nodes if "lut" in n.attributes])
    return node.name, size_of(subject, str(node.attributes["lut"]))


@kind("table entries", "artifact", Cause.LUT)
def table_entries(subject: Subject, rng: Random) -> faults.Fault:
    name, size = table_node(subject, rng)
    start, bit = int(rng.integers(size - 16)), int(rng.integers(1, 6))
    return faults.LutEntry(name, start, 1 << bit, count=16)


@kind("table read beside", "arithmetic", Cause.LUT)
def table_beside(subject: Subject, rng: Random) -> faults.Fault:
    return faults.LutBeside(table_node(subject, rng)[0], int(rng.choice([-1, 1])))


@kind("bias exponent", "artifact", Cause.EXPONENT)
def bias_exponent(subject: Subject, rng: Random) -> faults.Fault:
    return faults.BiasShifted(bias_of(subject, rng), int(rng.choice([-2, -1, 1, 2])))


@kind("channel exponents", "artifact", Cause.EXPONENT)
def channel_exponents(subject: Subject, rng: Random) -> faults.Fault:
    node = pick(rng, nodes_of(subject.graph, "Conv"))
    channels = subject.graph.value_info[node.outputs[0]].shape[-1]
    chosen = rng.choice(channels, max(1, channels // 4), replace=False).tolist()
    return faults.ShiftOff((node.name,), int(rng.choice([-1, 1])), tuple(chosen))


# -- state -------------------------------------------------------------------------------


def some_chunks(subject: Subject, rng: Random) -> Sequence[Tensors]:
    """The beginning of the stimulus, or all of it."""
    return subject.chunks[: int(rng.integers(1, len(subject.chunks) + 1))]


def other_chunks(subject: Subject, rng: Random) -> list[Tensors]:
    """Another stimulus."""
    return [
        {n: rng.permutation(v.reshape(-1)).reshape(v.shape) for n, v in chunk.items()}
        for chunk in subject.chunks
    ]


@kind("reset forgotten", "state", Cause.NOT_RESET)
def reset_forgotten(subject: Subject, rng: Random) -> Trial:
    return Trial(before=some_chunks(subject, rng), reset=False)


@kind("reset forgotten, other stream", "state", Cause.NOT_RESET)
def reset_forgotten_other(subject: Subject, rng: Random) -> Trial:
    return Trial(before=other_chunks(subject, rng), reset=False)


@kind("reset does nothing", "firmware", Cause.NOT_RESET)
def reset_does_nothing(subject: Subject, rng: Random) -> Trial:
    return Trial((faults.StateKept(),), before=some_chunks(subject, rng))


@kind("reset misses a cache", "firmware", Cause.NOT_RESET)
def reset_misses(subject: Subject, rng: Random) -> Trial:
    cache = pick(rng, nodes_of(subject.graph, "StreamingCache"))
    return Trial((faults.CacheKept(cache.name),), before=subject.chunks)


@kind("state dropped each chunk", "state", Cause.DROPPED)
def dropped_always(subject: Subject, rng: Random) -> faults.Fault:
    return faults.StateDropped()


@kind("state dropped once", "state", Cause.DROPPED)
def dropped_once(subject: Subject, rng: Random) -> Trial:
    dropped = faults.StateDropped(step_of(subject, rng, 1))
    return Trial((dropped,), passing=bool(rng.integers(2)))


@kind("one cache dropped", "firmware", Cause.DROPPED)
def one_dropped(subject: Subject, rng: Random) -> faults.Fault:
    cache = pick(rng, nodes_of(subject.graph, "StreamingCache"))
    return faults.CacheDropped(cache.name, step_of(subject, rng, 1))


@kind("cache not advanced", "firmware", Cause.DROPPED)
def not_advanced(subject: Subject, rng: Random) -> faults.Fault:
    cache = pick(rng, nodes_of(subject.graph, "StreamingCache"))
    return faults.CacheStale(cache.name, step_of(subject, rng, 2))


@kind("state binding skipped", "firmware", Cause.DROPPED)
def binding_skipped(subject: Subject, rng: Random) -> faults.Fault:
    if not subject.plan.state:
        raise NoPlace
    return faults.StateUnbound(tuple(subject.plan.state))


# -- what is not written -----------------------------------------------------------------


@kind("output not copied", "firmware", Cause.UNWRITTEN)
def output_not_copied(subject: Subject, rng: Random) -> Trial:
    name, step = output_of(subject, rng), step_of(subject, rng, 1)
    fault = faults.OutputNotCopied(name, step, *run_of(subject.expected[0][name].size, rng))
    return Trial((fault,), passing=bool(rng.integers(2)))


@kind("output canary", "firmware", Cause.UNWRITTEN)
def output_canary(subject: Subject, rng: Random) -> Trial:
    """The canary stays, and the device says so."""
    name, step = output_of(subject, rng), step_of(subject, rng)
    fault = faults.OutputUnwritten(name, step, *run_of(subject.expected[0][name].nbytes, rng))
    return Trial((fault,), passing=bool(rng.integers(2)))


@kind("node output not written", "firmware", Cause.UNWRITTEN)
def node_not_written(subject: Subject, rng: Random) -> faults.Fault:
    nodes = [n for n in subject.graph.nodes if n.op_type != "StreamingCache"]
    node = pick(rng, nodes)
    run = run_of(subject.sizes[node.outputs[0]], rng)
    return faults.NodeNotWritten(node.name, step_of(subject, rng, 1), *run)


# -- order -------------------------------------------------------------------------------


@kind("chunks swapped", "order", Cause.ORDER)
def swapped(subject: Subject, rng: Random) -> Trial:
    order = list(range(len(subject.chunks)))
    a, b = rng.choice(len(order), 2, replace=False)
    order[a], order[b] = order[b], order[a]
    return Trial(order=tuple(order))


@kind("chunk repeated", "order", Cause.ORDER)
def repeated(subject: Subject, rng: Random) -> Trial:
    """A chunk runs again in place of the next, and all that follow are one late."""
    at = step_of(subject, rng, 1)
    if rng.integers(2):
        return Trial((faults.InputLate(tuple(subject.chunks[0]), at),))
    order = [i if i < at else i - 1 for i in range(len(subject.chunks))]
    return Trial(order=tuple(order))


@kind("chunk lost", "order", Cause.ORDER)
def lost(subject: Subject, rng: Random) -> Trial:
    last = len(subject.chunks) - 1
    at = int(rng.integers(0, last))
    return Trial(order=tuple(i if i < at else min(i + 1, last) for i in range(last + 1)))


@kind("step run twice", "order", Cause.ORDER)
def run_twice(subject: Subject, rng: Random) -> Trial:
    """Not the first one: to run that twice is to forget a reset."""
    return Trial((faults.StepTwice(step_of(subject, rng, 1)),), passing=True)


@kind("input buffer kept", "firmware", Cause.ORDER)
def input_kept(subject: Subject, rng: Random) -> faults.Fault:
    at = step_of(subject, rng, 1)
    return faults.InputLate(tuple(subject.chunks[0]), at, at)


# -- buffers -----------------------------------------------------------------------------


def input_bits(subject: Subject, rng: Random, bits: int) -> faults.Fault:
    name, seed = pick(rng, list(subject.chunks[0])), int(rng.integers(1 << 30))
    return faults.InputBits(name, step_of(subject, rng), bits, seed)


@kind("input bit", "buffer", Cause.BUFFER)
def input_bit(subject: Subject, rng: Random) -> Trial:
    return Trial((input_bits(subject, rng, 1),), passing=True)


@kind("input bytes, each time", "buffer", Cause.BUFFER)
def input_bytes(subject: Subject, rng: Random) -> faults.Fault:
    return input_bits(subject, rng, 12)


@kind("output bits", "buffer", Cause.BUFFER)
def output_bits(subject: Subject, rng: Random) -> Trial:
    name, bits, seed = output_of(subject, rng), int(rng.integers(1, 9)), int(rng.integers(1 << 30))
    fault = faults.OutputBits(name, step_of(subject, rng), bits, seed)
    return Trial((fault,), passing=bool(rng.integers(2)))


@kind("output byte lost", "buffer", Cause.BUFFER)
def output_byte_lost(subject: Subject, rng: Random) -> Trial:
    name = output_of(subject, rng)
    byte = int(rng.integers(min(8, subject.expected[0][name].nbytes)))
    fault = faults.OutputByteLost(name, step_of(subject, rng), byte)
    return Trial((fault,), passing=bool(rng.integers(2)))


# -- arithmetic --------------------------------------------------------------------------


@kind("shift off", "arithmetic", Cause.EXPONENT)
def shift_off(subject: Subject, rng: Random) -> faults.Fault:
    return faults.ShiftOff((pick(rng, summing(subject)),), int(rng.choice([-1, 1, 2])))


@kind("result shifted again", "arithmetic", Cause.EXPONENT)
def shifted_again(subject: Subject, rng: Random) -> faults.Fault:
    return faults.WrongShift(pick(rng, summing(subject)), int(rng.choice([-1, 1, 2])))


@kind("requantization", "arithmetic", Cause.EXPONENT)
def requantization(subject: Subject, rng: Random) -> faults.Fault:
    kinds = ("AveragePool", "RequantizeLinear", "ReduceMean", "Mul")
    node = pick(rng, nodes_of(subject.graph, *kinds))
    return faults.Requantized(node.name, int(rng.choice([-1, 1])))


@kind("other chip's rounding", "arithmetic", Cause.ROUNDING)
def other_rounding(subject: Subject, rng: Random) -> faults.Fault:
    layer = summing(subject)
    if usual_mode(subject.target) == "even":
        return faults.RoundsOtherwise(layer, "up")
    return faults.RoundsOtherwise(layer, "even")


@kind("rounds down", "arithmetic", Cause.ROUNDING)
def rounds_down(subject: Subject, rng: Random) -> faults.Fault:
    node = pick(rng, nodes_of(subject.graph, "Conv", "Mul"))
    return faults.RoundsOtherwise((node.name,), "down")


@kind("halves away from zero", "arithmetic", Cause.ROUNDING)
def halves_away(subject: Subject, rng: Random) -> faults.Fault:
    return faults.RoundsOtherwise(summing(subject), "away")


@kind("exact product", "arithmetic", Cause.ROUNDING)
def exact_product(subject: Subject, rng: Random) -> faults.Fault:
    """int16 Mul as vector units do it: the integer product shifted, not a float32."""
    nodes = nodes_of(subject.graph, "Mul")
    if subject.bits != 16 or not nodes:
        raise NoPlace
    return faults.ExactProduct(tuple(n.name for n in nodes))


@kind("esp-nn interrupts", "arithmetic", Cause.ROUNDING_LOST)
def esp_nn_interrupts(subject: Subject, rng: Random) -> faults.Fault:
    return interrupted(subject, faults.RoundingLost(late=True))


@kind("esp-dsp interrupts", "arithmetic", Cause.MISALIGNED)
def esp_dsp_interrupts(subject: Subject, rng: Random) -> faults.Fault:
    return interrupted(subject, faults.MisalignedMode(late=True))


def interrupted(subject: Subject, fault: faults.VectorUnitFault) -> faults.Fault:
    if not TARGETS[subject.target].vector_modes or not fault.fits(subject.graph):
        raise NoPlace
    return fault


@kind("wraps", "arithmetic", Cause.SATURATION)
def wraps(subject: Subject, rng: Random) -> faults.Fault:
    return faults.SumWrap(summing(subject))


@kind("clamps at -max", "arithmetic", Cause.SATURATION)
def clamps(subject: Subject, rng: Random) -> Trial:
    return Trial(tuple(faults.SymmetricClamp(name) for name in summing(subject)))


@kind("limits swapped", "arithmetic", Cause.SATURATION)
def limits_swapped(subject: Subject, rng: Random) -> Trial:
    nodes = nodes_of(subject.graph, "Conv")
    return Trial(tuple(faults.SaturationWrap(node.name) for node in nodes))


@kind("no Relu", "arithmetic", Cause.SATURATION)
def no_relu(subject: Subject, rng: Random) -> faults.Fault:
    nodes = nodes_of(subject.graph, "Conv")
    node = pick(rng, [n for n in nodes if n.attributes.get("activation") == "Relu"])
    return faults.ReluLeftOut((node.name,))
