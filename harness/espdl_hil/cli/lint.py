"""``espdl-hil lint``: what is wrong with a streaming model or export, without a device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError, HarnessError
from espdl_hil.espdl import load_graph
from espdl_hil.model.quantization import BITS
from espdl_hil.streaming import RULES, Severity, has_caches, lint, lint_offline
from espdl_hil.streaming.rules_doc import explain
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from espdl_hil.proof.lint import Linted
    from espdl_hil.streaming import Finding

OFFLINE = "offline.espdl"  # as the artifact store names it, beside the streaming files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``lint`` and what it takes."""
    parser.description = (
        "Check streaming models without a device. A model file (.py) is quantized for "
        "its first target (or --target), each width and chunk size is checked, and what streams is "
        "described. A streaming .espdl file is "
        f"checked against its offline file: --offline, or {OFFLINE} in the same folder. An offline "
        "file alone is asked whether it can stream. `espdl-hil docs rules` explains every rule."
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="MODEL_OR_FILE")
    parser.add_argument(
        "--target", choices=DEVKIT_TARGETS, help="quantize model files for this one"
    )
    parser.add_argument("--bits", type=int, choices=BITS, help="at this width alone")
    parser.add_argument(
        "--hil-store", type=Path, metavar="DIR", help="folder of the artifact store"
    )
    parser.add_argument(
        "--explain", metavar="RULE", help="print a rule, such as S105, its edit, and an example"
    )
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


def run(options: argparse.Namespace) -> int:
    """Lint every file and print what was found.

    A file that cannot be linted is said on standard error; the others are linted all the same.

    Returns:
        2 if a file could not be linted, else 1 if there is an error among the findings, else 0.
    """
    if options.explain:
        print(explain_rule(options.explain))
        return 0
    if not options.files:
        raise ConfigError(
            "nothing to lint", hint="name a model file, an .espdl file, or --explain RULE"
        )
    found: dict[str, list[Finding]] = {}
    facts: dict[str, list[str]] = {}
    failed = False
    for path in options.files:
        try:
            if path.suffix == ".py":
                of_model = _lint_model(path, options)
                found |= of_model.findings
                facts |= of_model.facts
                for label, error in of_model.errors.items():
                    failed = True
                    print(f"error: {label}: {error}", file=sys.stderr)
            else:
                found[str(path)] = lint_file(
                    path, options.offline, options.frame_axis, options.chunk
                )
        except HarnessError as error:
            failed = True
            where = "" if str(path) in error.message else f"{path}: "
            print(f"error: {where}{error}", file=sys.stderr)
    if options.json and (found or not failed):
        data = {label: [f.to_json() for f in findings] for label, findings in found.items()}
        print(json.dumps(data, indent=1))
    elif found or not failed:
        print(*_as_text(found, facts), sep="\n")
    errors = (f for findings in found.values() for f in findings if f.severity is Severity.ERROR)
    return 2 if failed else int(any(errors))


def _lint_model(path: Path, options: argparse.Namespace) -> Linted:
    """Lint a model file, and show how far it is where somebody watches."""
    from rich.console import Console

    from espdl_hil.proof.lint import lint_model
    from espdl_hil.quantize import one_scheduler

    console = Console(stderr=True)  # its status is silent where nobody watches
    with console.status(f"quantizing {path.stem}") as status, one_scheduler():

        def show(done: int, total: int, label: str) -> None:
            status.update(f"quantizing {path.stem}: {done} of {total}, {label} is done")

        return lint_model(path, options.target, options.bits, options.hil_store, show)


def explain_rule(rule_id: str) -> str:
    """Return a rule as text: what it means, why, and the edit.

    Raises:
        ConfigError: there is no such rule.
    """
    rule = RULES.get(rule_id.upper())
    if rule is None:
        raise ConfigError(f"there is no rule {rule_id}", hint=f"there are {', '.join(RULES)}")
    return explain(rule)


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


def _as_text(found: dict[str, list[Finding]], facts: dict[str, list[str]]) -> Iterator[str]:
    said: set[Finding] = set()
    for label, findings in found.items():
        counts = ", ".join(
            f"{count} {severity.value}{'s' if count > 1 else ''}"
            for severity in Severity
            if (count := sum(finding.severity is severity for finding in findings))
        )
        yield f"{label}: {counts or 'nothing found'}"
        for finding in findings:
            if label in facts and finding in said:
                yield f"  {finding.rule} as above"
                continue
            said.add(finding)
            yield f"  {finding}"
            yield f"      edit: {finding.edit}"
        yield from (f"  {line}" for line in facts.get(label, ()))
