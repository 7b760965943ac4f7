"""``espdl-hil lint``: what is wrong with a streaming export, without a device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError, HarnessError
from espdl_hil.espdl import load_graph
from espdl_hil.streaming.lint import has_caches, lint, lint_offline
from espdl_hil.streaming.rules import Finding, Severity

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

OFFLINE = "offline.espdl"  # as the artifact store names it, beside the streaming files


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    lint_model: Callable[[Path], dict[str, list[Finding]]] | None = None,
) -> None:
    """Register ``lint``.

    Args:
        subparsers: Of ``espdl-hil``.
        lint_model: Makes the files of a model file (``.py``) and lints each; its keys are
            labels. Without it only ``.espdl`` files are taken.
    """
    parser = subparsers.add_parser(
        "lint",
        help="say what is wrong with a streaming model or export",
        description="Judge streaming models without a device. A streaming .espdl file is judged "
        f"by its offline file: --offline, or {OFFLINE} in the same folder. An offline file alone "
        "is asked whether it can stream. docs/rules.md explains every rule.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="MODEL_OR_FILE")
    parser.add_argument("--offline", type=Path, metavar="FILE", help="offline file to judge by")
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
    parser.set_defaults(func=lambda options: run(options, lint_model))


def run(
    options: argparse.Namespace,
    lint_model: Callable[[Path], dict[str, list[Finding]]] | None = None,
) -> int:
    """Lint every file and print what was found.

    A file that cannot be linted is said on standard error; the others are judged all the same.

    Returns:
        2 if a file could not be linted, else 1 if there is an error among the findings, else 0.
    """
    found: dict[str, list[Finding]] = {}
    failed = False
    for path in options.files:
        try:
            found |= _lint_one(path, options, lint_model)
        except HarnessError as error:
            failed = True
            where = "" if str(path) in error.message else f"{path}: "
            print(f"error: {where}{error}", file=sys.stderr)
    if found or not failed:
        print(_as_json(found) if options.json else "\n".join(_as_text(found)))
    errors = (f for findings in found.values() for f in findings if f.severity is Severity.ERROR)
    return 2 if failed else int(any(errors))


def _lint_one(
    path: Path,
    options: argparse.Namespace,
    lint_model: Callable[[Path], dict[str, list[Finding]]] | None,
) -> dict[str, list[Finding]]:
    if path.suffix != ".py":
        return {str(path): lint_file(path, options.offline, options.frame_axis, options.chunk)}
    if lint_model is None:
        raise ConfigError(f"{path}: only .espdl files can be linted here")
    return lint_model(path)


def lint_file(path: Path, offline: Path | None, frame_axis: int, chunk: int) -> list[Finding]:
    """Lint one ``.espdl`` file.

    Args:
        path: A streaming or an offline file.
        offline: The file to judge a streaming file by; None to look beside it.
        frame_axis: Time axis in the file's layout, where two files do not show it.
        chunk: Frames of a chunk, for an offline file alone.
    """
    graph = load_graph(path)
    beside = path.with_name(OFFLINE)
    if offline is None and beside.is_file() and beside != path:
        offline = beside
    if offline is not None and offline != path:
        return lint(graph, load_graph(offline))
    axes = {info.name: frame_axis for info in graph.inputs if len(info.shape) > frame_axis}
    if has_caches(graph):
        return lint(graph)
    return lint_offline(graph, axes, chunk)


def _as_text(found: dict[str, list[Finding]]) -> Sequence[str]:
    lines = []
    for label, findings in found.items():
        counts = ", ".join(
            f"{count} {severity.value}{'s' if count > 1 else ''}"
            for severity in Severity
            if (count := sum(finding.severity is severity for finding in findings))
        )
        lines.append(f"{label}: {counts or 'nothing found'}")
        for finding in findings:
            lines += [f"  {finding}", f"      edit: {finding.edit}"]
    return lines


def _as_json(found: dict[str, list[Finding]]) -> str:
    data = {
        label: [
            {
                "rule": finding.rule,
                "severity": finding.severity.value,
                "node": finding.node,
                "message": finding.message,
                "frames_affected": finding.frames_affected,
                "edit": finding.edit,
            }
            for finding in findings
        ]
        for label, findings in found.items()
    }
    return json.dumps(data, indent=1)
