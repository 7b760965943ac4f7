"""The commands of ``espdl-hil``, also ``python -m espdl_hil``. Knows no pytest."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys

from espdl_hil.errors import HarnessError

COMMANDS = {
    "init": "espdl_hil.cli.init",
    "inspect": "espdl_hil.cli.inspect",
    "lint": "espdl_hil.cli.lint",
    "tune": "espdl_hil.cli.tune",
    "image": "espdl_hil.cli.image",
    "export": "espdl_hil.cli.export",
    "simulate": "espdl_hil.cli.simulate",
    "replay": "espdl_hil.cli.replay",
    "conformance": "espdl_hil.cli.conformance",
    "demo": "espdl_hil.cli.demo",
    "compare": "espdl_hil.cli.compare",
    "history": "espdl_hil.cli.history",
    "bench": "espdl_hil.cli.bench",
    "doctor": "espdl_hil.cli.doctor",
    "baseline": "espdl_hil.cli.baseline",
    "docs": "espdl_hil.cli.docs",
}


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: Arguments without the program name; None means ``sys.argv[1:]``.

    Returns:
        The exit code: 0 on success, 1 when a check failed, 2 for a user's mistake.
    """
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="espdl-hil",
        description="Tools around the streaming harness; the tests themselves run under pytest.",
    )
    version = f"%(prog)s {importlib.metadata.version('espdl-hil')}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the wanted room is imported, so that `lint` does not pay for the simulator.
    chosen = [name for name in arguments if name in COMMANDS][:1]
    for name in chosen or COMMANDS:
        importlib.import_module(COMMANDS[name]).add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        return int(options.func(options) or 0)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
