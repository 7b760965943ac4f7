"""Faults of the artifact: bytes that are not those of the file, or those of another file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis import Cause
from espdl_hil.diagnosis.mismatch import Facts
from espdl_hil.espdl import pack_filter, unpack_filter
from faults.arithmetic import ShiftOff
from faults.device import Flaw
from faults.kinds import (
    Injection,
    NoPlace,
    Random,
    Register,
    biased_nodes,
    linear_nodes,
    pick,
    with_raw,
)

if TYPE_CHECKING:
    from espdl_hil.diagnosis.mismatch import Array
    from espdl_hil.espdl import Graph
    from faults.subjects import Subject

KINDS = Register()
STALE = Facts(expected_sha256="a" * 64, observed_sha256="b" * 64)


class _Other(Flaw):
    """The device runs another graph than the file says."""

    def __init__(self, graph: Graph, name: str, raw: Array) -> None:
        self._graph = with_raw(graph, name, raw)

    def artifact(self, graph: Graph) -> Graph:
        return self._graph


def _flip(raw: Array, index: int, bit: int) -> Array:
    changed = raw.copy()
    unsigned = changed.view(f"u{raw.dtype.itemsize}")
    unsigned[index] ^= unsigned.dtype.type(1 << bit)
    return changed


@KINDS.kind("weight bit", "artifact", Cause.WEIGHTS)
def weight_bit(subject: Subject, rng: Random) -> Injection:
    name = pick(rng, linear_nodes(subject.graph)).inputs[1]
    raw = subject.graph.initializers[name].raw
    bit = int(rng.integers(2, 8 * raw.dtype.itemsize))
    return Injection(_Other(subject.graph, name, _flip(raw, int(rng.integers(raw.size)), bit)))


@KINDS.kind("weight word", "artifact", Cause.WEIGHTS)
def weight_word(subject: Subject, rng: Random) -> Injection:
    """Four bytes in a row read as 0x00 or 0xff."""
    name = pick(rng, linear_nodes(subject.graph)).inputs[1]
    raw = subject.graph.initializers[name].raw.copy()
    count = 4 // raw.dtype.itemsize
    start = int(rng.integers(raw.size // count)) * count
    raw[start : start + count] = rng.choice([0, -1]).astype(raw.dtype)
    return Injection(_Other(subject.graph, name, raw))


@KINDS.kind("bias bit", "artifact", Cause.WEIGHTS)
def bias_bit(subject: Subject, rng: Random) -> Injection:
    name = pick(rng, biased_nodes(subject.graph)).inputs[2]
    raw = subject.graph.initializers[name].raw
    bit = int(rng.integers(8, 24))
    return Injection(_Other(subject.graph, name, _flip(raw, int(rng.integers(raw.size)), bit)))


@KINDS.kind("bias left out", "artifact", Cause.WEIGHTS)
def bias_left_out(subject: Subject, rng: Random) -> Injection:
    name = pick(rng, biased_nodes(subject.graph)).inputs[2]
    raw = subject.graph.initializers[name].raw
    return Injection(_Other(subject.graph, name, np.zeros_like(raw)))


@KINDS.kind("packed for target c", "artifact", Cause.WEIGHTS)
def packed_for_c(subject: Subject, rng: Random) -> Injection:
    node = pick(rng, linear_nodes(subject.graph))
    stored = subject.graph.initializers[node.inputs[1]]
    depthwise = node.attributes.get("group", 1) != 1
    taps = unpack_filter(stored.raw, stored.info.shape, subject.target, depthwise=depthwise)
    raw = pack_filter(taps, "c", depthwise=depthwise)
    if np.array_equal(raw, stored.raw):
        raise NoPlace
    return Injection(_Other(subject.graph, node.inputs[1], raw))


def _table(subject: Subject, rng: Random) -> tuple[str, Array]:
    names = [str(n.attributes["lut"]) for n in subject.graph.nodes if "lut" in n.attributes]
    name = pick(rng, names)
    return name, subject.graph.initializers[name].raw


@KINDS.kind("table entries", "artifact", Cause.LUT)
def table_entries(subject: Subject, rng: Random) -> Injection:
    name, stored = _table(subject, rng)
    raw = stored.copy()
    start = int(rng.integers(raw.size - 16))
    raw[start : start + 16] ^= raw.dtype.type(1 << int(rng.integers(1, 6)))
    return Injection(_Other(subject.graph, name, raw))


@KINDS.kind("table read beside", "arithmetic", Cause.LUT)
def table_beside(subject: Subject, rng: Random) -> Injection:
    name, stored = _table(subject, rng)
    return Injection(_Other(subject.graph, name, np.roll(stored, int(rng.choice([-1, 1])))))


@KINDS.kind("bias exponent", "artifact", Cause.EXPONENT)
def bias_exponent(subject: Subject, rng: Random) -> Injection:
    name = pick(rng, biased_nodes(subject.graph)).inputs[2]
    raw = subject.graph.initializers[name].raw
    by = int(rng.choice([-2, -1, 1, 2]))
    return Injection(_Other(subject.graph, name, raw << by if by > 0 else raw >> -by))


@KINDS.kind("channel exponents", "artifact", Cause.EXPONENT)
def channel_exponents(subject: Subject, rng: Random) -> Injection:
    node = pick(rng, linear_nodes(subject.graph))
    channels = subject.graph.value_info[node.outputs[0]].shape[-1]
    by = np.zeros(channels, np.int64)
    by[rng.choice(channels, max(1, channels // 4), replace=False)] = int(rng.choice([-1, 1]))
    return Injection(ShiftOff(subject, node, by))


@KINDS.kind("older weights", "artifact", Cause.STALE)
def older_weights(subject: Subject, rng: Random) -> Injection:
    graph = subject.graph
    nodes = linear_nodes(graph)
    for node in nodes:
        raw = graph.initializers[node.inputs[1]].raw
        noise = rng.integers(-8, 9, raw.shape)
        changed = (raw + noise).clip(-120, 120).astype(raw.dtype)
        graph = with_raw(graph, node.inputs[1], changed)
    name = pick(rng, nodes).inputs[1]
    return Injection(_Other(graph, name, graph.initializers[name].raw), STALE)


@KINDS.kind("older calibration", "artifact", Cause.STALE)
def older_calibration(subject: Subject, rng: Random) -> Injection:
    node = pick(rng, linear_nodes(subject.graph))
    return Injection(ShiftOff(subject, node, int(rng.choice([-1, 1]))), STALE)
