"""Do a device's kernels give what was recorded? Every node of a vector, and what it adds up to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.device.errors import RequestError, is_retryable
from espdl_hil.diagnosis.deviation import known_deviations
from espdl_hil.diagnosis.mismatch import Look
from espdl_hil.errors import DeviceError
from espdl_hil.operators import float_step_lsb
from espdl_hil.proof.findings import arithmetic_findings, vector_unit_findings
from espdl_hil.proof.observed import substrate_of
from espdl_hil.proof.probe import BATCH
from espdl_hil.report import environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from espdl_hil.compare import Array
    from espdl_hil.device.dut import Dut
    from espdl_hil.device.model import Model
    from espdl_hil.device.session import DeviceInfo, Session
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.espdl import Graph, Node
    from espdl_hil.proof.vectors import Vector, VectorStream

EVIDENCE = 1  # version of the evidence file
FLOAT_RELATIVE = 1e-6  # of float outputs: the recorded ones were made with a desktop's expf


class Agreement(StrEnum):
    """How a device's numbers relate to recorded ones, from best to worst."""

    EXACT = "exact"
    WITHIN = "bound used"
    DIFFERS = "differs"
    REFUSED = "refused"
    FAILED = "device failed"


SEVERITY = tuple(Agreement)


@dataclass(frozen=True)
class NodeVerdict:
    """One node of one vector, over all its steps.

    Attributes:
        operator: ONNX spelling.
        width: ``S8``, ``S16`` or ``F32``.
        tensor: Its output.
        agreement: What was found.
        elements: Elements that were compared.
        differing: Those that are not the same.
        largest: Largest difference: LSB, or relative for float outputs.
        bound: What counts as equal, likewise; 0 is exact.
    """

    operator: str
    width: str
    tensor: str
    agreement: Agreement
    elements: int
    differing: int
    largest: float
    bound: float


@dataclass(frozen=True)
class VectorVerdict:
    """One vector on one device.

    Attributes:
        name: Of the vector.
        settles: The unknown that it is about; empty for none.
        nodes: Every node, in execution order; empty when the device refused the model.
        error: Why there are no nodes; empty if there are.
        findings: What the device said of its vector unit.
        failed: The device failed, otherwise than by refusing.
        deviations: What the emulator is known to compute otherwise, if that is all that differs.
    """

    name: str
    settles: str
    nodes: tuple[NodeVerdict, ...]
    error: str = ""
    findings: tuple[str, ...] = ()
    failed: bool = False
    deviations: tuple[str, ...] = ()

    @property
    def agreement(self) -> Agreement:
        """The worst of its nodes; a vector without nodes is no agreement."""
        if not self.nodes:
            return Agreement.FAILED if self.failed else Agreement.REFUSED
        return max((node.agreement for node in self.nodes), key=SEVERITY.index)

    @property
    def passed(self) -> bool:
        """Whether all is within its bound; an unknown that a devkit refuses to guess stays one."""
        if self.agreement is Agreement.REFUSED:
            return bool(self.settles and self.error)
        return self.agreement in (Agreement.EXACT, Agreement.WITHIN)

    @property
    def wrong(self) -> bool:
        """Whether it neither passed nor deviates as is known of the emulator."""
        return not self.passed and not self.deviations

    def __str__(self) -> str:
        wrong = next((n for n in self.nodes if n.agreement is Agreement.DIFFERS), None)
        if wrong is None:
            return f"{self.name}: {self.error or self.agreement}"
        unit = " relative" if wrong.width == "F32" else " LSB"
        return (
            f"{self.name}: {wrong.operator} {wrong.tensor}: {wrong.differing} of {wrong.elements} "
            f"elements differ, by {wrong.largest:.6g}{unit} at most, allowed is {wrong.bound:g}"
        )


def run_vectors(dut: Dut, vectors: Iterable[Vector]) -> list[VectorVerdict]:
    """Run vectors one by one; a device that fails under one is brought back for the next.

    Raises:
        DeviceError: it cannot be brought back, or is another one than it should be.
    """
    verdicts = []
    for vector in vectors:
        try:
            verdicts.append(run_vector(dut.session, vector))
        except DeviceError as error:
            if not is_retryable(error):
                raise
            verdicts.append(
                VectorVerdict(vector.name, vector.settles, (), error.message, failed=True)
            )
            dut.recover(error.message)
    return verdicts


def run_vector(session: Session, vector: Vector) -> VectorVerdict:
    """Run a vector on a device and compare every node's output with the recorded one.

    Args:
        session: With a device of the vector's target; the model is uploaded and unloaded again.
        vector: What to run.

    Raises:
        DeviceError: the device failed otherwise than by refusing the model or a step of it.
    """
    try:
        model = session.upload(vector.model, vector.name)
        try:
            seen = [_observe(model, stream) for stream in vector.streams]
        finally:
            model.unload()
    except RequestError as error:
        told = ": ".join(filter(None, (error.where, error.reason)))
        return VectorVerdict(vector.name, vector.settles, (), told)
    pairs = [
        pair
        for stream, steps in zip(vector.streams, seen, strict=True)
        for pair in zip(stream.outputs, (step.watched for step in steps), strict=True)
    ]
    bounds = _bounds(vector.graph, vector.target)
    nodes = tuple(
        _judge(node, name, bounds[name], [(wanted[name], found[name]) for wanted, found in pairs])
        for node in vector.graph.nodes
        for name in node.outputs
        if name in pairs[0][0]
    )
    differs = any(node.agreement is Agreement.DIFFERS for node in nodes)
    findings = tuple(f for steps in seen for f in vector_unit_findings(steps))
    return VectorVerdict(
        vector.name,
        vector.settles,
        nodes,
        findings=tuple(dict.fromkeys(findings)),
        deviations=_deviations(session.info.emulator, vector, seen) if differs else (),
    )


@dataclass(frozen=True)
class _Seen:
    """Steps whose tensors were all watched; fits ``diagnosis.mismatch.Probe``."""

    steps: Sequence[StepResult]

    def digests(self, names: Sequence[str], chunks: int) -> list[Look]:
        """Nobody asks: the tensors themselves are here."""
        raise NotImplementedError

    def values(self, names: Sequence[str], chunks: int) -> list[Look]:
        """The tensors themselves."""
        return [
            Look({name: step.watched[name] for name in names if name in step.watched})
            for step in self.steps[:chunks]
        ]


def _deviations(
    emulator: str, vector: Vector, seen: Sequence[Sequence[StepResult]]
) -> tuple[str, ...]:
    """What is known of the emulator, if every node that differs is that."""
    lines: dict[str, None] = {}
    for stream, steps in zip(vector.streams, seen, strict=True):
        found = known_deviations(
            emulator, vector.target, vector.graph, stream.inputs, {}, _Seen(steps)
        )
        if found is None:
            return ()
        lines |= dict.fromkeys(found)
    return tuple(lines)


def _observe(model: Model, stream: VectorStream) -> list[StepResult]:
    """Run a stream once for each batch of tensors that fits a watch list."""
    names = list(stream.outputs[0])
    steps: list[StepResult] = []
    for start in range(0, len(names), BATCH):
        model.watch(names[start : start + BATCH])
        found = model.stream(stream.inputs, reset=True)
        before = [step.watched for step in steps] or [{} for _ in found]
        steps = [
            replace(step, watched={**known, **step.watched})
            for step, known in zip(found, before, strict=True)
        ]
    return steps


def _bounds(graph: Graph, target: str) -> dict[str, int]:
    """LSB by tensor, of the float steps that it comes from: recorded with another compiler's."""
    bounds: dict[str, int] = defaultdict(int)
    for node in graph.nodes:
        inherited = max((bounds[name] for name in node.inputs), default=0)
        bounds |= dict.fromkeys(node.outputs, max(inherited, float_step_lsb(node, target)))
    return bounds


def _judge(
    node: Node, tensor: str, bound_lsb: int, pairs: Sequence[tuple[Array, Any]]
) -> NodeVerdict:
    elements = differing = 0
    largest, bound = 0.0, float(bound_lsb)
    for wanted, found in pairs:
        elements += wanted.size
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            differing, largest = differing + wanted.size, float("inf")
            continue
        if wanted.dtype.kind == "f":
            bound = FLOAT_RELATIVE
            scale = np.maximum(np.abs(wanted), np.finfo(wanted.dtype).tiny)
            error = np.where(found == wanted, 0, np.abs(found - wanted) / scale)
            error = np.nan_to_num(error, nan=np.inf)
        else:
            error = np.abs(found.astype(np.int64) - wanted.astype(np.int64))
        differing += int(np.count_nonzero(error))
        largest = max(largest, float(error.max(initial=0)))
    agreement = Agreement.WITHIN if differing else Agreement.EXACT
    if not elements or largest > bound:
        agreement = Agreement.DIFFERS
    is_float = pairs[0][0].dtype.kind == "f"
    width = "F32" if is_float else str(node.attributes.get("quant_type", ""))
    return NodeVerdict(node.op_type, width, tensor, agreement, elements, differing, largest, bound)


# -- what it adds up to ------------------------------------------------------------------------


def by_operator(verdicts: Iterable[VectorVerdict]) -> dict[tuple[str, str], dict[str, int]]:
    """Count nodes by operator and width: all elements, then nodes by what was found."""
    table: dict[tuple[str, str], dict[str, int]] = {}
    for verdict in verdicts:
        for node in verdict.nodes:
            empty = {"nodes": 0, "elements": 0} | dict.fromkeys(map(str, SEVERITY[:3]), 0)
            counts = table.setdefault((node.operator, node.width), empty)
            counts["nodes"] += 1
            counts["elements"] += node.elements
            counts[node.agreement] += 1
    return dict(sorted(table.items()))


def render(verdicts: Sequence[VectorVerdict]) -> str:
    """Return the table by operator and width, each vector that failed, and the sum, as text."""
    head = f"{'operator':<22}{'width':<7}{'nodes':>6}{'elements':>10}"
    lines = [head + "".join(f"{name:>12}" for name in SEVERITY[:3])]
    for (operator, width), counts in by_operator(verdicts).items():
        line = f"{operator:<22}{width:<7}{counts['nodes']:>6}{counts['elements']:>10,}"
        lines.append(line + "".join(f"{counts[name]:>12}" for name in SEVERITY[:3]))
    lines += [str(verdict) for verdict in verdicts if verdict.wrong]
    lines += [f"deviates as known: {v.name}: {told}" for v in verdicts for told in v.deviations]
    lines += [f"{v.name}: {finding}" for v in verdicts for finding in v.findings]
    lines += [f"unknown {v.settles}: {v.name}: {v.agreement}" for v in verdicts if v.settles]
    passed = sum(verdict.passed for verdict in verdicts)
    return "\n".join([*lines, f"{passed} of {len(verdicts)} vectors as recorded"])


def evidence(info: DeviceInfo, verdicts: Sequence[VectorVerdict]) -> dict[str, Any]:
    """Return what can be checked in: which device, and what each vector gave.

    An exact node is only counted; the others are told one by one.
    """
    return {
        "evidence": EVIDENCE,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": {
            "target": info.target,
            "substrate": substrate_of(info),
            "emulator": info.emulator,
            "chip": info.chip,
            "revision": info.revision,
            "idf_version": info.idf_version,
            "espdl_version": info.espdl_version,
            "app_sha256": info.app_sha256,
        },
        "environment": environment(),
        "findings": list(arithmetic_findings(info.espdl_version)),
        "operators": [
            {"operator": operator, "width": width, **counts}
            for (operator, width), counts in by_operator(verdicts).items()
        ],
        "vectors": [_told(verdict) for verdict in verdicts],
    }


def _told(verdict: VectorVerdict) -> Mapping[str, Any]:
    inexact = [node for node in verdict.nodes if node.agreement is not Agreement.EXACT]
    return {
        "name": verdict.name,
        "agreement": str(verdict.agreement),
        "settles": verdict.settles,
        "nodes": len(verdict.nodes),
        "elements": sum(node.elements for node in verdict.nodes),
        "inexact": [_node(node) for node in inexact],
        "error": verdict.error,
        "findings": list(verdict.findings),
        "deviations": list(verdict.deviations),
    }


def _node(node: NodeVerdict) -> dict[str, Any]:
    finite = node.largest if np.isfinite(node.largest) else None  # None: another shape or type
    return {**vars(node), "agreement": str(node.agreement), "largest": finite}
