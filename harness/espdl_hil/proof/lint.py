"""What there is to say of a model file before any device sees it: all its faults, or its facts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.model import load_model
from espdl_hil.operators import check_graph
from espdl_hil.operators.sizes import node_macs
from espdl_hil.proof.case import Case
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Recipe, Store, prepare, result_of
from espdl_hil.streaming import Severity, finding_of, from_espdl
from espdl_hil.streaming.findings import find
from espdl_hil.streaming.names import readable
from espdl_hil.streaming.rules import CHIP_ROUNDING

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.model import StreamingModel
    from espdl_hil.quantize import Progress
    from espdl_hil.quantize.prepare import Result
    from espdl_hil.streaming import Finding


@dataclass
class Linted:
    """What was found in a model file, by label: ``tcn int8 chunk3``.

    Attributes:
        findings: What is wrong with each streaming file, or why there is none; what all widths
            or all chunk sizes share stands once, under a shorter label.
        facts: What there is to know of each that streams, a line each.
        errors: Why a width could not be quantized at all.
    """

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    facts: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, HarnessError] = field(default_factory=dict)


def lint_model(
    path: Path,
    target: str | None = None,
    bits: int | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
) -> Linted:
    """Quantize a model file; the worker lints each width and chunk size.

    A width that fails does not hide the other, and a chunk size that is refused not the others.

    Args:
        path: The model file.
        target: For which target; None means the model's first.
        bits: At which width; None means all that the model declares.
        store: Folder of the artifact store; None means the user's cache.
        progress: Called after each recipe.

    Raises:
        HarnessError: the model file is broken.
    """
    model = load_model(path)
    target = target or model.targets[0]
    widths = model.bits if bits is None else (bits,)
    recipes = {width: Recipe.of(model, target, width) for width in widths}
    results = prepare(list(recipes.values()), Store(store), progress=progress)
    linted = Linted()
    _note_failures(linted, model, {width: results[r.key] for width, r in recipes.items()})
    for width, recipe in recipes.items():
        for chunk_frames in model.chunk_frames:
            result = result_of(results, recipe, chunk_frames)
            if isinstance(result, HarnessError):
                continue
            label = f"{model.name} int{width} chunk{chunk_frames}"
            findings = linted.findings[label] = result.lint[chunk_frames]
            wrong = any(finding.severity is Severity.ERROR for finding in findings)
            if chunk_frames in result.plans and not wrong:
                expected = Expected(Case(target, model, width, chunk_frames), result)
                linted.findings[label] = [
                    *findings,
                    *chip_rounding(expected),
                    *expected.not_shown,
                ]
                linted.facts[label] = describe_stream(expected)
    return linted


def _note_failures(linted: Linted, model: StreamingModel, results: dict[int, Result]) -> None:
    """Note what refused or failed, once for all widths that say the same."""
    widths: dict[tuple[str, ...], list[int]] = {}
    failed: dict[tuple[str, ...], HarnessError] = {}
    for width, result in results.items():
        if isinstance(result, HarnessError):
            faults = result.every if isinstance(result, StreamingError) else [result]
            key = tuple(fault.message for fault in faults)  # hints name the log of each
            widths.setdefault(key, []).append(width)
            failed.setdefault(key, result)
    for key, error in failed.items():
        label = f"{model.name} {' and '.join(f'int{width}' for width in widths[key])}"
        if isinstance(error, StreamingError):
            linted.findings[label] = [finding_of(fault) for fault in error.every]
        else:
            linted.errors[label] = error


def chip_rounding(expected: Expected) -> list[Finding]:
    """Say which elements of the stream the chip itself makes differ, as the rows will."""
    made = expected.chip_made
    if made is None:
        return []
    names = from_espdl(expected.offline_graph)
    node, message = (readable(text, names) for text in (made.nodes[0].node, str(made)))
    found = find(CHIP_ROUNDING, node, message.removeprefix("chip: "))
    if expected.case.model.chip_rounding == "accept":
        return [replace(found, severity=Severity.NOTE, edit=made.edit)]
    return [replace(found, edit=f'{made.edit}; or chip_rounding="accept"')]


def describe_stream(expected: Expected) -> list[str]:
    """Say what there is to know of a model that streams, a line each."""
    case, artifacts = expected.case, expected.artifacts
    plan, graph = expected.plan, expected.streaming_graph
    shapes = check_graph(graph, case.target)
    field_frames = "unbounded" if plan.receptive_field is None else f"{plan.receptive_field} frames"
    lines = [
        f"{plan.state_bytes} bytes of state, {len(plan.caches)} caches",
        *(f"  {c.window - 1} frames of {c.tensor} for {c.consumer}" for c in plan.caches),
        f"latency {plan.latency_frames} frames, warm-up {plan.warmup_frames} frames, receptive "
        f"field {field_frames}",
        f"{sum(node_macs(node, shapes) for node in graph.nodes):,} MACs a chunk",
    ]
    lines += artifacts.notes(case.chunk_frames)
    names = from_espdl(expected.offline_graph)
    losses = expected.ladder.losses.items()
    return [
        *(readable(line, names) for line in lines),
        *(f"weakest layer for {name}: {loss}" for name, loss in losses),
    ]
