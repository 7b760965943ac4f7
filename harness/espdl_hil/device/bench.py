"""The bench file: which boards a lab has. Reads TOML, checks it, and says where it is wrong."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from espdl_hil.device.claim import Candidate
from espdl_hil.device.ports import list_usb_ports
from espdl_hil.errors import ConfigError
from espdl_hil.targets import CHIP_TARGETS, DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from espdl_hil.device.ports import ListPorts

BENCH_VARIABLE: Final = "ESPDL_HIL_BENCH"
SIMULATED_PORT: Final = "simulated"
LABGRID_SCHEME: Final = "labgrid://"
PORT_SCHEMES: Final = ("rfc2217://", "socket://", LABGRID_SCHEME)
REVISION_DIGITS: Final = 100  # major * 100 + minor, as the chips report it

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_REVISION = re.compile(r"(\d+)\.(\d{1,2})")
_HEAD = re.compile(r"\s*\[\[\s*board\s*\]\]")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Quarantine:
    """When a board is out of service: after so many *recoveries* within so many *hours*."""

    recoveries: int = 5
    hours: float = 24.0


@dataclass(frozen=True)
class Power:
    """Shell commands that switch a board's supply; *cycle* takes it away and gives it back."""

    cycle: str = ""
    on: str = ""
    off: str = ""


@dataclass(frozen=True)
class BenchBoard:
    """One board.

    Attributes:
        name: What the lab calls it.
        target: ESP-IDF target name.
        port: Device path, pyserial URL, ``labgrid://place``, or ``simulated``; empty if
            *serial_number* finds it.
        serial_number: Of its USB device.
        mac: Of the chip, lower case with colons; empty if that is not known.
        baud: Of its console; None for the run's.
        max_baud: Highest rate of its line; None for the run's.
        min_revision: Least chip revision, major * 100 + minor.
        max_revision: Greatest one.
        firmware: ``simulated`` for a devkit that ``espdl-hil simulate`` serves.
        pace: A simulated devkit of the run lets bytes take their time.
        tags: Words to select it by.
        power: How its supply is switched.
        quarantine: When it is taken out of service.
        bench: Path of the bench file; empty for a board of the command line.
    """

    name: str
    target: str
    port: str = ""
    serial_number: str = ""
    mac: str = ""
    baud: int | None = None
    max_baud: int | None = None
    min_revision: int | None = None
    max_revision: int | None = None
    firmware: str = ""
    pace: bool = False
    tags: tuple[str, ...] = ()
    power: Power = Power()
    quarantine: Quarantine = Quarantine()
    bench: str = ""

    def __str__(self) -> str:
        if self.name == self.port:
            return self.port
        return f"{self.name} ({self.port or self.serial_number})"

    @property
    def is_simulated(self) -> bool:
        """It exists only while a run uses it."""
        return self.port == SIMULATED_PORT

    @property
    def identity(self) -> str:
        """The one name that records of the board go by."""
        return f"mac:{self.mac}" if self.mac else f"{self.bench}#{self.name}" if self.bench else ""

    def locate(self, comports: ListPorts | None = None) -> str:
        """Where its port is now.

        Raises:
            ConfigError: it is not attached.
        """
        if self.serial_number:
            for found in list_usb_ports(comports):
                if (found.serial_number or "").lower() == self.serial_number.lower():
                    return found.device
        is_file = self.bench and not self.is_simulated and "://" not in self.port
        if is_file and not Path(self.port or "/").is_char_device():
            wanted = f"USB port with the serial number {self.serial_number}"
            raise ConfigError(
                f"board {self.name} is not attached: there is no "
                f"{wanted if self.serial_number else self.port}",
                hint="check power and cable; `espdl-hil bench scan` shows what is attached",
            )
        return self.port

    def candidate(self, port: str) -> Candidate:
        """The board as claims know it: by its port and by its MAC."""
        if self.is_simulated:
            return Candidate(self.name, frozenset({f"{self.bench}#{self.name}"}))
        names = set(Candidate.of_port(port).names)
        if self.mac:
            names.add(f"mac:{self.mac}")
        return Candidate(self.name, frozenset(names))


@dataclass(frozen=True)
class Bench:
    """The boards of a lab, in the file's order, which is that in which they are used."""

    path: Path
    boards: tuple[BenchBoard, ...]

    def select(self, targets: Sequence[str], words: Sequence[str] = ()) -> tuple[BenchBoard, ...]:
        """Boards of some targets, limited to those with a name or tag among *words*.

        Raises:
            ConfigError: no board has one of *words*, or a target has no board.
        """
        known = {word for board in self.boards for word in (board.name, *board.tags)}
        for word in words:
            if word not in known:
                raise ConfigError(
                    f"{self.path}: no board has the name or tag {word!r}",
                    hint=f"names and tags: {', '.join(sorted(known))}",
                )
        chosen = tuple(
            board
            for board in self.boards
            if board.target in targets and (not words or {board.name, *board.tags} & set(words))
        )
        for target in targets:
            if all(board.target != target for board in chosen):
                raise ConfigError(
                    f"{self.path} has no board of target {target}"
                    + (f" among {', '.join(words)}" if words else ""),
                    hint="name another --target, or add the board: espdl-hil bench scan",
                )
        return chosen


def read_bench(path: Path) -> Bench:
    """Read a bench file; ``docs/lab.md`` is its schema.

    Raises:
        ConfigError: it cannot be read or is wrong; names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"bench file {path} cannot be read: {error.strerror}",
            hint="name another with --hil-bench, or write one: espdl-hil bench scan",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"bench file {path} is no UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        reason, _, place = str(error).rpartition(" (at ")
        line = re.match(r"line (\d+)", place)
        number = line[1] if line else str(len(text.splitlines()))
        raise ConfigError(f"{path}:{number}: no TOML: {reason or error}") from None
    return Bench(path, _Reader(path, text).boards(content))


class _Reader:
    """Checks what TOML has read; knows at which line each key is."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()
        heads = [n for n, line in enumerate(self._lines) if _HEAD.match(line)]
        ends = [*heads[1:], len(self._lines)]
        self._spans = list(zip(heads, ends, strict=False))
        self._number = 0  # of the board that is being read

    def boards(self, content: Mapping[str, Any]) -> tuple[BenchBoard, ...]:
        unknown = next((key for key in content if key != "board"), None)
        if unknown is not None:
            self._fail(f"unknown table or key {unknown!r}: expected [[board]]", unknown, whole=True)
        tables = content.get("board")
        if not isinstance(tables, list) or not tables:
            self._fail("no board: expected at least one [[board]]", "board", whole=True)
        boards: list[BenchBoard] = []
        for self._number, table in enumerate(tables):
            if not isinstance(table, dict):
                self._fail("a board is a table: expected [[board]]", "board", whole=True)
            boards.append(self._board(table, boards))
        return tuple(boards)

    def _board(self, table: Mapping[str, Any], others: Sequence[BenchBoard]) -> BenchBoard:
        for key in table:
            if key not in _KEYS:
                self._fail(f"unknown key {key!r}: expected one of {', '.join(_KEYS)}", key)
        for key in ("name", "target"):
            if key not in table:
                self._fail(f"a board has no {key}", "")
        values = {key: _KEYS[key](self, key, value) for key, value in table.items()}
        low, high = values.pop("revision", (None, None))
        board = BenchBoard(
            **values, min_revision=low, max_revision=high, bench=str(self._path.resolve())
        )
        if not board.port and not board.serial_number:
            self._fail(f"board {board.name} has neither port nor serial_number", "name")
        if board.is_simulated and board.target not in DEVKIT_TARGETS:
            self._fail(
                f"there is no simulated devkit of target {board.target}: expected one of "
                f"{', '.join(DEVKIT_TARGETS)}",
                "target",
            )
        if board.pace and not board.is_simulated:
            self._fail(f"pace is for boards with port = {SIMULATED_PORT!r}", "pace")
        for key in ("name", "mac", "serial_number", "port"):
            value = getattr(board, key)
            is_taken = any(getattr(other, key) == value for other in others)
            if value and value != SIMULATED_PORT and is_taken:
                self._fail(f"two boards have the {key} {value!r}", key)
        return board

    def text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            self._fail(f"{key} is {value!r}: expected a text", key)
        return str(value)

    def name(self, key: str, value: Any) -> str:
        if not _NAME.fullmatch(self.text(key, value)):
            self._fail(f"{key} is {value!r}: expected letters, digits, '.', '_' and '-'", key)
        return str(value)

    def target(self, key: str, value: Any) -> str:
        if self.text(key, value) not in CHIP_TARGETS:
            self._fail(f"{key} is {value!r}: expected one of {', '.join(CHIP_TARGETS)}", key)
        return str(value)

    def port(self, key: str, value: Any) -> str:
        port = self.text(key, value)
        if "*" in port:
            self._fail(f"{key} is {value!r}: a board has one port, not a pattern", key)
        if "://" in port and not port.startswith(PORT_SCHEMES):
            self._fail(
                f"{key} is {value!r}: expected a device path, {'…, '.join(PORT_SCHEMES)}…, "
                f"or {SIMULATED_PORT}",
                key,
            )
        return port

    def mac(self, key: str, value: Any) -> str:
        mac = self.text(key, value).lower().replace("-", ":")
        if not _MAC.fullmatch(mac):
            self._fail(f"{key} is {value!r}: expected six bytes, 7c:df:a1:00:11:22", key)
        return mac

    def count(self, key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._fail(f"{key} is {value!r}: expected a whole number of at least 1", key)
        return int(value)

    def hours(self, key: str, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            self._fail(f"{key} is {value!r}: expected a number above 0", key)
        return float(value)

    def revision(self, key: str, value: Any) -> tuple[int, int]:
        ends = [value, value] if isinstance(value, str) else value
        found = [
            _REVISION.fullmatch(end) if isinstance(end, str) else None
            for end in (ends if isinstance(ends, list) else [])
        ]
        if len(found) != 2 or None in found:
            self._fail(f'{key} is {value!r}: expected "3.1", or from and to: ["3.0", "3.99"]', key)
        low, high = (int(end[1]) * REVISION_DIGITS + int(end[2]) for end in found if end)
        if low > high:
            self._fail(f"{key} is {value!r}: the first is above the second", key)
        return low, high

    def firmware(self, key: str, value: Any) -> str:
        if value != SIMULATED_PORT:
            self._fail(
                f"{key} is {value!r}: expected 'simulated', for a devkit of espdl-hil simulate", key
            )
        return str(value)

    def yes_or_no(self, key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self._fail(f"{key} is {value!r}: expected true or false", key)
        return value

    def tags(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            self._fail(f"{key} is {value!r}: expected a list of words", key)
        return tuple(self.name(key, tag) for tag in value)

    def power(self, key: str, value: Any) -> Power:
        texts = self._table(key, value, dict.fromkeys(("cycle", "on", "off"), _Reader.text))
        if "cycle" not in texts and not {"on", "off"} <= texts.keys():
            self._fail(f"{key} needs cycle, or on and off", key)
        return Power(**texts)

    def quarantine(self, key: str, value: Any) -> Quarantine:
        keys = {"recoveries": _Reader.count, "hours": _Reader.hours}
        return Quarantine(**self._table(key, value, keys))

    def _table(
        self, key: str, value: Any, keys: Mapping[str, Callable[[_Reader, str, Any], Any]]
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._fail(f"{key} is {value!r}: expected {{ {', '.join(keys)} }}", key)
        for inner in value:
            if inner not in keys:
                self._fail(f"unknown key {key}.{inner}: expected {', '.join(keys)}", key)
        return {inner: keys[inner](self, inner, found) for inner, found in value.items()}

    def _fail(self, reason: str, key: str, *, whole: bool = False) -> NoReturn:
        """Name the line of a key: of the board that is read, or of the whole file."""
        start, end = 0, len(self._lines)
        if not whole and self._number < len(self._spans):
            start, end = self._spans[self._number]
        word = re.escape(key)
        own_line = re.compile(rf'[\s\[]*(?:board\.)?"?{word}"?\s*[=\].]')
        inline = re.compile(rf"[{{,]\s*{word}\s*=")
        lines = [(number, self._lines[number]) for number in range(start, end)] if key else []
        found = next((n for n, line in lines if own_line.match(line)), None)
        if found is None:
            found = next((n for n, line in lines if inline.search(line)), start)
        raise ConfigError(f"{self._path}:{found + 1}: {reason}", hint="the schema is docs/lab.md")


_KEYS: dict[str, Callable[[_Reader, str, Any], Any]] = {
    "name": _Reader.name,
    "target": _Reader.target,
    "port": _Reader.port,
    "serial_number": _Reader.text,
    "mac": _Reader.mac,
    "baud": _Reader.count,
    "max_baud": _Reader.count,
    "revision": _Reader.revision,
    "firmware": _Reader.firmware,
    "pace": _Reader.yes_or_no,
    "tags": _Reader.tags,
    "power": _Reader.power,
    "quarantine": _Reader.quarantine,
}
