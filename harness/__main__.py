"""Command line: ``python -m harness {simulate,inspect,lint,replay}``."""

from __future__ import annotations

import argparse
import importlib
import sys

from harness.errors import HarnessError

COMMANDS = {
    "simulate": "harness.simulator.cli",
    "inspect": "harness.interpreter.cli",
    "lint": "harness.plugin.lint",
    "replay": "harness.plugin.replay",
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
        prog="python -m harness",
        description="Tools around the streaming harness; the tests themselves run under pytest.",
    )
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


if __name__ == "__main__":
    sys.exit(main())
