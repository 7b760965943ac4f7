"""``espdl-hil lint``: model files are quantized first, then judged like any file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.cli import lint_files as streaming_cli
from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.streaming import RULES, Finding, Severity, lint

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from espdl_hil.espdl import Graph
    from espdl_hil.model import StreamingModel
    from espdl_hil.streaming import StreamingPlan


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``lint`` for model files and ``.espdl`` files."""
    streaming_cli.add_parser(subparsers, lint_model_file)


def lint_model_file(path: Path) -> dict[str, list[Finding]]:
    """Quantize a model file for its first target, and lint each width and chunk size.

    Args:
        path: The model file.

    Returns:
        Findings by label, ``tcn int8 chunk3``.

    Raises:
        HarnessError: the model file is broken, or quantizing failed for a reason other than
            streaming.
    """
    from espdl_hil.model import load_model
    from espdl_hil.quantize import Recipe, Store, prepare

    model = load_model(path)
    recipes = {bits: Recipe.of(model, model.targets[0], bits) for bits in model.bits}
    results = prepare(list(recipes.values()), Store())
    found: dict[str, list[Finding]] = {}
    for bits, recipe in recipes.items():
        result = results[recipe.key]
        if isinstance(result, StreamingError):
            found[f"{model.name} int{bits}"] = [finding_of(result)]
        elif isinstance(result, HarnessError):
            raise result
        else:
            for chunk_frames in model.chunk_frames:
                label = f"{model.name} int{bits} chunk{chunk_frames}"
                streaming = load_graph(result.streaming[chunk_frames])
                plan = result.plans.get(chunk_frames)
                found[label] = lint_artifacts(model, streaming, load_graph(result.offline), plan)
    return found


def lint_artifacts(
    model: StreamingModel, streaming: Graph, offline: Graph, plan: StreamingPlan | None
) -> list[Finding]:
    """Judge one streaming file of a model by its offline file.

    Args:
        model: Declares the recurrent state.
        streaming: The streaming file.
        offline: The offline file of the same calibration.
        plan: What the analysis planned; None if it refused.

    Returns:
        Findings, errors first.
    """
    return lint(
        streaming,
        offline,
        frame_axes=plan.frame_axes if plan else None,
        state=model.state or None,
    )


def require_sound(findings: list[Finding]) -> None:
    """Raise the first error among findings.

    Raises:
        StreamingError: with the finding's rule, node and edit.
    """
    for finding in findings:
        if finding.severity is Severity.ERROR:
            raise StreamingError(
                f"{finding.message}{_affected(finding)}",
                rule=finding.rule,
                node=finding.node,
                hint=finding.edit,
            )


def finding_of(error: StreamingError) -> Finding:
    """Return a planner's refusal as the finding that it is."""
    return Finding(
        rule=error.rule,
        severity=RULES[error.rule].severity,
        node=error.node,
        message=error.message.removeprefix(f"[{error.rule}] {error.node}: "),
        frames_affected="",
        edit=error.hint or RULES[error.rule].edit,
    )


def _affected(finding: Finding) -> str:
    return f" ({finding.frames_affected})" if finding.frames_affected else ""
