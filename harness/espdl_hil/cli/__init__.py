"""The commands of ``espdl-hil``, also ``python -m espdl_hil``. Knows no pytest."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys

from espdl_hil.errors import HarnessError

COMMANDS = {  # each in the module of its name, and what it does
    "init": "write a model file, a test and a CI workflow that pass at once",
    "inspect": "print an .espdl file, or run it",
    "lint": "say what is wrong with a streaming model or export",
    "tune": "look for quantization settings that keep more of a model",
    "image": "write a flash image with models, or the models package alone",
    "export": "write the proven files of a model as an ESP-IDF component",
    "simulate": "serve a simulated devkit on a serial port (RFC 2217)",
    "replay": "run a repro bundle again on a simulated devkit",
    "conformance": "compare a device's kernels with recorded vectors",
    "demo": "run a small model on a simulated devkit, on request with a fault",
    "compare": "say what changed between runs",
    "history": "list past runs, or follow a model over them",
    "bench": "look after the boards of a lab",
    "doctor": "look for what would stop a run on this host",
    "baseline": "keep numbers and latencies of runs, and judge later ones by them",
    "docs": "print a page of the documentation, or a streaming rule",
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
    # Only the wanted module is imported, so that `lint` does not pay for the simulator.
    chosen = next((name for name in arguments if name in COMMANDS), None)
    for name, text in COMMANDS.items():
        command = subparsers.add_parser(name, help=text)
        if name == chosen:
            module = importlib.import_module(f"espdl_hil.cli.{name}")
            module.add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        return int(module.run(options))
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
