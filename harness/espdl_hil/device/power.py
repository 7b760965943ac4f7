"""Switches a board's supply with the commands of the bench file."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Final

from espdl_hil.errors import DeviceError

if TYPE_CHECKING:
    from espdl_hil.device.bench import BenchBoard

COMMAND_S: Final = 60.0  # uhubctl and relays take seconds
OFF_S: Final = 1.0  # capacitors have run empty by then


def power_cycle(board: BenchBoard) -> bool:
    """Take a board's supply away and give it back.

    Returns:
        Whether it has a switch.

    Raises:
        DeviceError: a command failed, or took too long.
    """
    power = board.power
    if power.cycle:
        _run(board, power.cycle)
    elif power.off and power.on:
        _run(board, power.off)
        time.sleep(OFF_S)
        _run(board, power.on)
    else:
        return False
    return True


def _run(board: BenchBoard, command: str) -> None:
    try:
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"took more than {COMMAND_S:g} s"
    else:
        if done.returncode == 0:
            return
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        reason = f"ended with {done.returncode}: {last[0] if last else 'it said nothing'}"
    raise DeviceError(
        f"power command of board {board.name} {reason}",
        port=board.port,
        hint=f"try it by hand: {command}",
    )
