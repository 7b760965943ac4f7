"""The ROM's download mode, served by esp32-mock-bootloader.

That package speaks the serial protocol of the ROM and of esptool's stub. Here
are the things it leaves to its user: the connection (which hands it one whole
frame at a time and ends by exception, so that nothing polls), the flash (NOR, of
the devkit's size), the facts of the chip at hand (revision, flash id), and the
commands that restart the chip. What it cannot know is answered before it sees
the question, and so are blocks of flash data, which it would walk byte by byte.
"""

from __future__ import annotations

import struct
import threading
import zlib
from typing import TYPE_CHECKING

import numpy as np
from esp32_mock_bootloader import protocol, server
from esptool.targets import CHIP_DEFS

from espdl_hil.simulator.chips import Chip, ResetReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from espdl_hil.simulator.flash import NorFlash
    from espdl_hil.simulator.port import SerialPort

END = b"\xc0"
MAX_FRAME_BYTES = 1 << 17  # esptool's largest block, every byte escaped, and some
HEADER_BYTES = 8  # direction, command, size, checksum
FLASH_READ_ID = 0x9F  # SPI flash command RDID
STUB_FLASH_ERROR = 0xC4  # stub: failed SPI operation
STUB_INFLATE_ERROR = 0xC8  # stub: inflate error
_BODY_BYTES = {  # what a command carries at least
    protocol.CMD["FLASH_BEGIN"]: 16,
    protocol.CMD["FLASH_DATA"]: 16,
    protocol.CMD["FLASH_DEFL_BEGIN"]: 16,
    protocol.CMD["FLASH_DEFL_DATA"]: 16,
    protocol.CMD["SPI_FLASH_MD5"]: 16,
    protocol.CMD["READ_REG"]: 4,
    protocol.CMD["WRITE_REG"]: 16,
}


class LeaveDownload(Exception):  # noqa: N818 - an event that unwinds the loader, not an error
    """A command ended the download mode.

    Args:
        run_flash: Boot what is in flash; False starts the download mode again.
        reason: The reset that the command amounts to.
    """

    def __init__(self, *, run_flash: bool, reason: ResetReason) -> None:
        super().__init__()
        self.run_flash = run_flash
        self.reason = reason


class LoaderFlash(server.FlashImage):
    """The loader's view of the flash: erase with begin, then program.

    Args:
        flash: The devkit's flash.
    """

    def __init__(self, flash: NorFlash) -> None:  # the base class would take 4 MiB of its own
        self._flash = flash
        self._offset = 0
        self._end = 0
        self._inflater: zlib._Decompress | None = None
        self.error: int | None = None  # of the last write; answered instead of success

    def begin_plain(self, payload: bytes) -> None:
        """FLASH_BEGIN: size, blocks, block size, offset."""
        size, _blocks, _block_bytes, self._offset = struct.unpack_from("<IIII", payload)
        self._end = self._offset + size
        if self._end > self._flash.size:
            self.error = STUB_FLASH_ERROR
        else:
            self._flash.erase(self._offset, size)

    def write(self, data: bytes) -> None:
        """Program the data of a FLASH_DATA; padding past the end is ones."""
        self._flash.program(self._offset, data)
        self._offset += len(data)

    def begin_defl(self, payload: bytes) -> None:
        """FLASH_DEFL_BEGIN: as FLASH_BEGIN, sizes before compression."""
        self.begin_plain(payload)
        self._inflater = zlib.decompressobj()

    def write_deflated(self, piece: bytes) -> None:
        """Program the data of a FLASH_DEFL_DATA, a piece of one deflate stream."""
        try:
            assert self._inflater is not None
            data = self._inflater.decompress(piece)
        except (zlib.error, AssertionError):  # damaged, or no begin before it
            self.error = STUB_INFLATE_ERROR
            return
        if self._offset + len(data) > self._end:
            self.error = STUB_INFLATE_ERROR
            return
        self.write(data)

    def end_defl(self) -> None:
        """FLASH_DEFL_END."""
        self._inflater = None

    def erase_all(self) -> None:
        """ERASE_FLASH."""
        self._flash.erase(0, self._flash.size)

    def erase_region(self, offset: int, size: int) -> None:
        """ERASE_REGION."""
        self._flash.erase(offset, size)

    def read(self, offset: int, length: int) -> bytes:
        """READ_FLASH and READ_FLASH_SLOW."""
        return self._flash.read(offset, length)

    def md5_stub_response(self, payload: bytes, *, stub: bool = False) -> bytes:
        """SPI_FLASH_MD5: address, size; the stub answers in binary, the ROM in hex."""
        digest = self._flash.md5(*struct.unpack_from("<II", payload))
        body = (digest if stub else digest.hex().encode()) + b"\x00\x00"
        header = struct.pack("<BBHI", 1, protocol.CMD["SPI_FLASH_MD5"], len(body), 0)
        framed: bytes = server.slip_encode(header + body)
        return framed


class LoaderLink:
    """The loader's end of the serial port: what the package calls a connection.

    Args:
        port: The devkit's port.
        chip: The chip.
        efuses: Word per register address, where it is not as the package has it.
        flash: The devkit's flash.
    """

    def __init__(
        self, port: SerialPort, chip: Chip, efuses: Mapping[int, int], flash: NorFlash
    ) -> None:
        self.flash = LoaderFlash(flash)
        self._port = port
        self._buffer = bytearray()
        self._efuses = efuses
        self._jedec_id = flash.jedec_id
        definition = CHIP_DEFS[chip.name]
        self._spi_command = definition.SPI_REG_BASE + definition.SPI_USR2_OFFS
        self._spi_data = definition.SPI_REG_BASE + definition.SPI_W0_OFFS
        self._flash_command = 0
        self._watchdog_config = definition.RTC_CNTL_WDTCONFIG0_REG
        self._watchdog_protect = definition.RTC_CNTL_WDTWPROTECT_REG
        self._watchdog_armed = False
        self._stub = False
        self._leave: LeaveDownload | None = None
        self._handlers: dict[int, Callable[[bytes], bytes | None]] = {
            protocol.CMD["READ_REG"]: self._read_register,
            protocol.CMD["WRITE_REG"]: self._write_register,
            protocol.CMD["MEM_END"]: self._memory_end,
            protocol.CMD["FLASH_DATA"]: self._write_block,
            protocol.CMD["FLASH_DEFL_DATA"]: self._write_block,
            protocol.CMD["FLASH_END"]: self._flash_end,
            protocol.CMD["FLASH_DEFL_END"]: self._flash_end,
        }

    def set_timeout(self, timeout: float) -> None:
        """Ignored: a wait ends with a frame or with an exception of the port."""

    def abort_empty_session(self) -> bool:
        """Never: the port outlives its clients."""
        return False

    def ignore_eof_for_disconnect(self) -> bool:
        """Never: there is no end of file here."""
        return False

    def close(self) -> None:
        """The port is the devkit's."""

    def recv(self, _size: int) -> bytes:
        """Wait for the next packet that the package must answer.

        Returns:
            One SLIP frame, encoded anew, so that its escapes mean to the package what they do here.
        """
        while True:
            body = self._next_frame()[1:-1]
            packet = body.replace(b"\xdb\xdc", END).replace(b"\xdb\xdd", b"\xdb")
            answer = self._own_answer(packet)
            if answer is None:
                frame: bytes = server.slip_encode(packet)
                return frame
            self._port.write(answer)

    def sendall(self, data: bytes) -> None:
        """Send an answer of the package, then do what the command asked for."""
        self._port.write(self._with_error(data))
        leave, self._leave = self._leave, None
        if leave is not None:
            raise leave

    def _next_frame(self) -> bytes:
        while True:
            start = self._buffer.find(END)
            if start < 0:
                self._buffer.clear()
            else:
                del self._buffer[:start]
                end = self._buffer.find(END, 1)
                if end == 1:  # the first one closed an earlier frame
                    del self._buffer[:1]
                    continue
                if end > 1:
                    frame = bytes(self._buffer[: end + 1])
                    del self._buffer[:end]  # a delimiter may close one frame and open the next
                    return frame
            if len(self._buffer) > MAX_FRAME_BYTES:  # it has no end
                self._buffer.clear()
            self._buffer += self._port.read(None)

    def _own_answer(self, packet: bytes) -> bytes | None:
        """Answer what the package cannot know or is slow at; None leaves the packet to it."""
        if len(packet) < HEADER_BYTES or packet[0] != 0:
            return None
        command, size = packet[1], int.from_bytes(packet[2:4], "little")
        if min(size, len(packet) - HEADER_BYTES) < _BODY_BYTES.get(command, 0):
            return self._response(command, error=protocol.ROM_INVALID_MESSAGE)
        handler = self._handlers.get(command)
        return None if handler is None else handler(packet)

    def _write_block(self, packet: bytes) -> bytes:
        """FLASH_DATA and FLASH_DEFL_DATA: length, sequence number, two zeros, data.

        The package would take each byte in hand.
        """
        body = packet[HEADER_BYTES:]
        data = body[16 : 16 + int.from_bytes(body[:4], "little")]
        values = np.frombuffer(data, np.uint8)
        if np.bitwise_xor.reduce(values, initial=protocol.CHECKSUM_SEED) != packet[4]:
            self.flash.error = (
                protocol.STUB_CHECKSUM_ERROR if self._stub else protocol.ROM_CHECKSUM_ERROR
            )
        elif packet[1] == protocol.CMD["FLASH_DATA"]:
            self.flash.write(data)
        else:
            self.flash.write_deflated(data)
        return self._with_error(self._response(packet[1]))

    def _response(self, command: int, value: int = 0, error: int = 0) -> bytes:
        response: bytes = server.make_response(
            command, value=value, status=int(error != 0), error=error, stub=self._stub
        )
        return response

    def _with_error(self, response: bytes) -> bytes:
        """Replace a response when the flash has something else to say."""
        error, self.flash.error = self.flash.error, None
        return response if error is None else self._response(response[2], error=error)

    def _read_register(self, packet: bytes) -> bytes | None:
        address = int.from_bytes(packet[8:12], "little")
        value = self._efuses.get(address)
        if address == self._spi_data and self._flash_command == FLASH_READ_ID:
            value = self._jedec_id
        if value is None:
            return None
        return self._response(protocol.CMD["READ_REG"], value)

    def _write_register(self, packet: bytes) -> None:
        address, value = struct.unpack_from("<II", packet, HEADER_BYTES)
        if address == self._spi_command:
            self._flash_command = value & 0xFF
        elif address == self._watchdog_config:
            self._watchdog_armed = bool(value >> 31)
        elif address == self._watchdog_protect and value == 0 and self._watchdog_armed:
            # esptool writes this last; the time-out is over before its next command
            self._leave = LeaveDownload(run_flash=True, reason=ResetReason.WATCHDOG)

    def _memory_end(self, packet: bytes) -> None:
        """An entry point given: from here on it is esptool's stub that answers."""
        self._stub = self._stub or any(packet[HEADER_BYTES + 4 : HEADER_BYTES + 8])

    def _flash_end(self, packet: bytes) -> None:
        stay = any(packet[HEADER_BYTES : HEADER_BYTES + 4])
        if self._stub and not stay:  # leaves the stub; IO0 was latched, so the ROM loader follows
            self._leave = LeaveDownload(run_flash=False, reason=ResetReason.SOFTWARE)
        elif not self._stub:  # for the ROM it is "reboot" and "run user code"
            self._leave = LeaveDownload(run_flash=stay, reason=ResetReason.SOFTWARE)


def serve_download(
    port: SerialPort, chip: Chip, efuses: Mapping[int, int], flash: NorFlash
) -> None:
    """Run the download mode until a reset or a command ends it; arguments as of the link.

    Raises:
        LeaveDownload: A command ended it.
        EnableLow: The client pulled EN low.
        PowerOff: The devkit is being closed.
    """
    link = LoaderLink(port, chip, efuses, flash)
    never = threading.Event()
    server.handle_client(link, never, chip.name, exit_on_disconnect=True, flash=link.flash)
