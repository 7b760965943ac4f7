"""``espdl-hil bench``: what is attached, who uses it, and taking a board back into service."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from espdl_hil.cli.files import write_text
from espdl_hil.device.bench import BENCH_VARIABLE, LABGRID_SCHEME, read_bench
from espdl_hil.errors import BusyError, ConfigError, HarnessError

if TYPE_CHECKING:
    import argparse

    from espdl_hil.device.bench import Bench, BenchBoard
    from espdl_hil.device.ports import ChipFacts, ListPorts

_HEADINGS = ("board", "target", "port", "chip", "MAC", "app", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``bench`` and what it takes."""
    parser.description = "Boards of a lab: see docs/lab.md."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="ask every board who it is",
        description="Asks every free board of the bench file who it is, all at once, which resets "
        "them; boards in use are left alone. Exit code 0: all can be used; 1: some cannot.",
    )
    clear = actions.add_parser(
        "clear",
        help="take a board back into service",
        description="Takes a board back into service and forgets its recoveries.",
    )
    clear.add_argument("name", metavar="NAME", help="the board's name in the bench file")
    for action in (check, clear):
        action.add_argument(
            "--bench", type=Path, metavar="FILE", help="the bench file (default: ESPDL_HIL_BENCH)"
        )
    scan = actions.add_parser(
        "scan",
        help="write a bench file of what is attached",
        description="Asks the chip behind each USB serial port who it is, one after the other, "
        "which resets it, and writes a bench file. Ports in use are left alone.",
    )
    scan.add_argument(
        "--output", type=Path, metavar="FILE", help="write it there (default: standard output)"
    )


def run(options: argparse.Namespace) -> int:
    """Check, clear or scan.

    Raises:
        ConfigError: there is no such bench or board, or a file cannot be written.
    """
    if options.action == "scan":
        return write_scan(options.output)
    bench = _bench(options.bench)
    return check_bench(bench) if options.action == "check" else clear_board(bench, options.name)


def _bench(path: Path | None) -> Bench:
    if path is None and (named := os.environ.get(BENCH_VARIABLE)):
        path = Path(named)
    if path is None:
        raise ConfigError(
            "no bench file is named",
            hint=f"name it with --bench or {BENCH_VARIABLE}, or write one: espdl-hil bench scan",
        )
    return read_bench(path)


@dataclass(frozen=True)
class BoardState:
    """What a look at one board gave.

    Attributes:
        board: Which.
        port: Where it is; empty if it is not there.
        state: ``free``, or why it cannot be used.
        facts: What its chip says; None if it was not asked or did not answer.
    """

    board: BenchBoard
    port: str
    state: str
    facts: ChipFacts | None = None

    @property
    def is_usable(self) -> bool:
        """It can be used, now or once its holder has ended."""
        return self.state == "free" or self.state.startswith("held by")

    @property
    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        from espdl_hil.proof.boards import spelt

        found = self.facts
        chip = f"{found.target} {spelt(found.revision)}" if found else ""
        rest = (found.mac, found.app or "none") if found else ("", "")
        return (self.board.name, self.board.target, self.port, chip, *rest, self.state)


def check_bench(bench: Bench) -> int:
    """Print the state of every board.

    Returns:
        0 if all can be used, else 1.
    """
    from espdl_hil.device.rfc2217_handler import register

    register()
    with (
        contextlib.redirect_stdout(io.StringIO()),  # esptool prints as it connects
        ThreadPoolExecutor(max_workers=len(bench.boards)) as pool,
    ):
        states = list(pool.map(_look, bench.boards))
    rows = [_HEADINGS, *(state.cells for state in states)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0 if all(state.is_usable for state in states) else 1


def _look(board: BenchBoard) -> BoardState:
    from espdl_hil.device.claim import Claim
    from espdl_hil.device.ports import PROBE_DEADLINE_S, identify_chip
    from espdl_hil.device.rfc2217_handler import event_url
    from espdl_hil.device.service_record import read_record
    from espdl_hil.proof.boards import REMOTE_UART, mismatch

    if out := read_record(board.identity).out:
        return BoardState(board, board.port, f"out of service: {out}")
    try:
        port = board.locate()
    except ConfigError as error:
        return BoardState(board, "", error.message)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(Claim([[board.candidate(port)]]).acquire())
            if port.startswith(LABGRID_SCHEME):
                from espdl_hil.device.labgrid_place import LabgridPlace

                port = stack.enter_context(LabgridPlace(port, 0.0, print)).port
            if board.is_simulated or port.startswith(REMOTE_UART):
                return BoardState(board, port, "free")
            facts = identify_chip(event_url(port), PROBE_DEADLINE_S, read_app=True)
    except BusyError as error:
        return BoardState(board, port, error.message.rpartition(" (")[2].rstrip(")"))
    except HarnessError as error:
        return BoardState(board, port, error.message)
    except Exception as error:  # noqa: BLE001 - one odd board must not hide the others
        reason = str(error).partition("\n")[0] or type(error).__name__
        return BoardState(board, port, f"silent: {reason}")
    return BoardState(board, port, mismatch(board, facts)[0] or "free", facts)


def clear_board(bench: Bench, name: str) -> int:
    """Take a board back into service.

    Raises:
        ConfigError: there is no such board.
    """
    from espdl_hil.device.service_record import clear

    board = next((board for board in bench.boards if board.name == name), None)
    if board is None:
        known = ", ".join(board.name for board in bench.boards)
        raise ConfigError(f"{bench.path} has no board {name!r}", hint=f"boards: {known}")
    out = clear(board.identity)
    print(f"{name} is in service again; it was out: {out}" if out else f"{name} was in service")
    return 0


def write_scan(output: Path | None, comports: ListPorts | None = None) -> int:
    """Write a bench file of what is attached.

    Returns:
        0, or 1 when there was no board.

    Raises:
        ConfigError: it cannot be written.
    """
    from espdl_hil.device.ports import BRIDGES, list_usb_ports

    ports = [found for found in list_usb_ports(comports) if found.vid in BRIDGES]
    entries: list[str] = []
    counts: dict[str, int] = {}
    for found in ports:
        try:
            facts = _identify_free(found.device)
        except HarnessError as error:
            print(f"{found}: {error.message}", file=sys.stderr)
            continue
        number = counts[facts.target] = counts.get(facts.target, 0) + 1
        lines = [f'name = "{facts.target.removeprefix("esp32") or "esp32"}-{number}"']
        lines.append(f'target = "{facts.target}"')
        lines.append(f'port = "{_stable_name(found.device)}"')
        serials = [other.serial_number for other in ports]
        if found.serial_number and serials.count(found.serial_number) == 1:
            lines.append(f'serial_number = "{found.serial_number}"')
        lines.append(f'mac = "{facts.mac}"')
        lines.append(f'revision = "{facts.revision // 100}.{facts.revision % 100}"')
        entries.append("\n".join(["[[board]]", *lines]) + "\n")
    if not entries:
        print("no board was found", file=sys.stderr)
        return 1
    text = "\n".join(entries)
    if output is None:
        print(text, end="")
        return 0
    write_text(output, text)
    print(f"{len(entries)} boards: {output}")
    return 0


def _identify_free(device: str) -> ChipFacts:
    from espdl_hil.device.claim import Candidate, Claim
    from espdl_hil.proof.boards import identify
    from espdl_hil.targets import DEVKIT_TARGETS

    with Claim([[Candidate.of_port(device)]]).acquire():
        return identify(device, DEVKIT_TARGETS[0])


def _stable_name(device: str) -> str:
    """The name by which udev finds the device again, where it has one."""
    folder = Path("/dev/serial/by-id")
    links = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((str(link) for link in links if link.resolve() == Path(device).resolve()), device)
