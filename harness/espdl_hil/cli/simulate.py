"""``espdl-hil simulate``: serve one simulated devkit until told to stop."""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import stat
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.simulator.devkit import Devkit
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator


READ_BYTES = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``simulate`` and what it takes."""
    parser.description = (
        "Serves one simulated devkit, erased as from the factory, and prints its "
        "port's URL. Stops at SIGINT, SIGTERM, or when a pipe on its standard input is closed."
    )
    parser.add_argument("--target", required=True, choices=DEVKIT_TARGETS, help="the chip")
    parser.add_argument(
        "--port", type=_tcp_port, default=0, help="TCP port on 127.0.0.1 (default: a free one)"
    )
    parser.add_argument(
        "--flash-file",
        type=Path,
        help="keep the flash's contents in this file (default: forget them)",
    )
    parser.add_argument("--mac", help="MAC of the chip (default: the one that all have)")
    parser.add_argument(
        "--pace",
        action="store_true",
        help="let bytes take the time that they take on a UART: 10 bits each, at the rate that "
        "client and firmware have (default: as fast as they come, at any rate)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve a devkit until a signal or the end of a piped standard input.

    Raises:
        ConfigError: See :class:`Devkit`.
    """
    made = Devkit(
        options.target,
        port=options.port,
        flash_file=options.flash_file,
        mac=options.mac,
        paced=options.pace,
    )
    with _stop_signals() as stopped, made as devkit:
        print(devkit.url, flush=True)
        _wait(stopped)
    return 0


@contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable at SIGINT or SIGTERM."""
    readable, writable = socket.socketpair()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {
        number: signal.signal(number, lambda *_: writable.send(b"\x00")) for number in signals
    }
    try:
        yield readable
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        readable.close()
        writable.close()


def _wait(stopped: socket.socket) -> None:
    sources: list[socket.socket | int] = [stopped]
    # A terminal or /dev/null says nothing about whoever started this; a pipe does when it ends.
    if sys.stdin is not None and stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        sources.append(sys.stdin.fileno())
    while True:
        for source in select.select(sources, [], [])[0]:
            if source is stopped or not os.read(sys.stdin.fileno(), READ_BYTES):
                return


def _tcp_port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{number} is not a TCP port, 0 to 65535")
    return number
