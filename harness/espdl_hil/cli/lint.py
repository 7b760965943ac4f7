"""``espdl-hil lint``: what is wrong with a streaming model or export, without a device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.streaming import Severity, finding_of, has_caches, lint, lint_offline

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from espdl_hil.streaming import Finding

OFFLINE = "offline.espdl"  # as the artifact store names it, beside the streaming files


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``lint``.

    Args:
        subparsers: Of ``espdl-hil``.
    """
    parser = subparsers.add_parser(
        "lint",
        help="say what is wrong with a streaming model or export",
        description="Check streaming models without a device. A model file (.py) is quantized for "
        "its first target, and each width and chunk size is checked. A streaming .espdl file is "
        f"checked against its offline file: --offline, or {OFFLINE} in the same folder. An offline "
        "file alone is asked whether it can stream. docs/rules.md explains every rule.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="MODEL_OR_FILE")
    parser.add_argument(
        "--offline", type=Path, metavar="FILE", help="offline file to check against"
    )
    parser.add_argument(
        "--frame-axis",
        type=int,
        default=1,
        metavar="AXIS",
        help="time axis in the file, where two files do not show it (default: 1)",
    )
    parser.add_argument(
        "--chunk", type=int, default=1, metavar="FRAMES", help="chunk for an offline file alone"
    )
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Lint every file and print what was found.

    A file that cannot be linted is said on standard error; the others are linted all the same.

    Returns:
        2 if a file could not be linted, else 1 if there is an error among the findings, else 0.
    """
    found: dict[str, list[Finding]] = {}
    failed = False
    for path in options.files:
        try:
            if path.suffix == ".py":
                found |= lint_model_file(path)
            else:
                found[str(path)] = lint_file(
                    path, options.offline, options.frame_axis, options.chunk
                )
        except HarnessError as error:
            failed = True
            where = "" if str(path) in error.message else f"{path}: "
            print(f"error: {where}{error}", file=sys.stderr)
    if found or not failed:
        print(_as_json(found) if options.json else "\n".join(_as_text(found)))
    errors = (f for findings in found.values() for f in findings if f.severity is Severity.ERROR)
    return 2 if failed else int(any(errors))


def lint_model_file(path: Path) -> dict[str, list[Finding]]:
    """Quantize a model file for its first target; the worker lints each width and chunk size.

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
            for chunk_frames, findings in result.lint.items():
                found[f"{model.name} int{bits} chunk{chunk_frames}"] = findings
    return found


def lint_file(path: Path, offline: Path | None, frame_axis: int, chunk: int) -> list[Finding]:
    """Lint one ``.espdl`` file.

    Args:
        path: A streaming or an offline file.
        offline: The file to check a streaming file against; None to look beside it.
        frame_axis: Time axis in the file's layout, where two files do not show it.
        chunk: Frames of a chunk, for an offline file alone.

    Raises:
        HarnessError: a file is damaged, or the two do not belong together.
    """
    graph = load_graph(path)
    beside = path.with_name(OFFLINE)
    if offline is None and beside.is_file() and beside != path:
        offline = beside
    if offline is not None and offline != path:
        return lint(graph, load_graph(offline))
    if has_caches(graph):
        return lint(graph)
    axes = {info.name: frame_axis for info in graph.inputs if len(info.shape) > frame_axis}
    return lint_offline(graph, axes, chunk)


def _as_text(found: dict[str, list[Finding]]) -> Iterator[str]:
    for label, findings in found.items():
        counts = ", ".join(
            f"{count} {severity.value}{'s' if count > 1 else ''}"
            for severity in Severity
            if (count := sum(finding.severity is severity for finding in findings))
        )
        yield f"{label}: {counts or 'nothing found'}"
        for finding in findings:
            yield f"  {finding}"
            yield f"      edit: {finding.edit}"


def _as_json(found: dict[str, list[Finding]]) -> str:
    data = {label: [finding.to_json() for finding in findings] for label, findings in found.items()}
    return json.dumps(data, indent=1)
