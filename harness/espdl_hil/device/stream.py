"""One stream of chunks: packets of steps out, result blocks in, many on their way at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from espdl_hil.device.errors import RequestError
from espdl_hil.device.replies import check_size
from espdl_hil.device.tensors import Array, StepResult, TensorSpec, Unwritten, VectorUnit, unpack
from espdl_hil.errors import DeviceError
from espdl_hil.wire.messages import (
    LATER_STEP,
    LATER_UNWRITTEN,
    Chunk,
    ChunkFlag,
    ChunkReply,
    ReadResult,
    ReadResultReply,
    WatchMode,
)
from espdl_hil.wire.schema import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.device.timing import Pending
    from espdl_hil.device.transport import Transport
    from espdl_hil.wire.messages import LaterUnwritten, StartReply

    Progress = Callable[[int, int], object]

CHUNK_FIELDS: Final = 12  # bytes of a Chunk before its data
CHUNK_REPLY_FIELDS: Final = 30  # of a ChunkReply
LATER_STEP_FIELDS: Final = 18  # of a LaterStep and a LaterUnwritten
MAX_STEPS: Final = 16  # of a packet: more save nothing, and delay what a slow model has given
PACKET_BYTES: Final = 2048  # the device waits for a whole packet, and the host for its answer
READ_REPLY_FIELDS: Final = 4  # of a ReadResultReply
DIGEST_BYTES: Final = 4


def _record_bytes(spec: TensorSpec, mode: WatchMode) -> int:
    return DIGEST_BYTES if mode == WatchMode.DIGEST else spec.nbytes


def watched_bytes(watched: Sequence[tuple[TensorSpec, WatchMode]]) -> int:
    """Size of the watch records of one step."""
    return sum(_record_bytes(spec, mode) for spec, mode in watched)


class Stream:
    """Runs blocks of input through a started stream; outputs and watched tensors are in order."""

    def __init__(
        self,
        transport: Transport,
        model: str,
        started: StartReply,
        outputs: Sequence[TensorSpec],
        watched: Sequence[tuple[TensorSpec, WatchMode]],
    ) -> None:
        self._transport = transport
        self._model = model
        self._started = started
        self._outputs = outputs
        self._watched = watched
        self._max_payload = transport.max_payload

    def run(self, blocks: Sequence[bytes], progress: Progress | None = None) -> list[StepResult]:
        """Run one step per block.

        Args:
            blocks: The step's input block each, ``input_bytes`` long.
            progress: Called with the blocks sent, which waits for room, and all.

        Returns:
            One result a block, in order.

        Raises:
            DeviceError: A step failed, or the device did; names the first chunk without a result.
        """
        wanted = self._started.input_bytes
        for block in blocks:
            if len(block) != wanted:
                raise self._transport.failures.broken(
                    f"model {self._model!r} takes {wanted} bytes a step, "
                    f"its inputs have {len(block)}"
                )
        results: list[StepResult] = []
        try:
            many = self._steps_a_packet()
            packets = []
            for at in range(0, len(blocks), many):
                packets.append((self._send(at, blocks[at : at + many]), self._request_rest(at)))
                if progress is not None:
                    progress(min(at + many, len(blocks)), len(blocks))
            for sent, rest in packets:
                results += self._collect(sent, rest, min(many, len(blocks) - len(results)))
        except DeviceError as error:
            if isinstance(error, RequestError):
                self._transport.drain()
            done = error.done if isinstance(error, RequestError) else 0
            error.locate(f"model {self._model!r}, chunk {len(results) + done}")
            raise
        return results

    def _steps_a_packet(self) -> int:
        """As many steps as request and response have room for."""
        if not self._started.input_bytes:
            return 1
        limit = min(self._max_payload, PACKET_BYTES)
        room = limit - CHUNK_REPLY_FIELDS + LATER_STEP_FIELDS
        sent = (limit - CHUNK_FIELDS) // self._started.input_bytes
        received = room // (LATER_STEP_FIELDS + self._started.result_bytes)
        return max(1, min(MAX_STEPS, sent, received))

    def _send(self, index: int, blocks: Sequence[bytes]) -> list[Pending]:
        piece = self._max_payload - CHUNK_FIELDS
        data = b"".join(blocks)
        return [
            self._transport.submit(
                Chunk(
                    stream=self._started.stream, index=index, offset=at, data=data[at : at + piece]
                ),
                self._transport.timing.step_s * len(blocks),
            )
            for at in range(0, max(1, len(data)), piece)
        ]

    def _request_rest(self, index: int) -> list[Pending]:
        """Ask for what does not fit the chunk's reply, before the next step replaces it."""
        total = self._started.result_bytes
        piece = self._max_payload - READ_REPLY_FIELDS
        return [
            self._transport.submit(
                ReadResult(
                    stream=self._started.stream,
                    index=index,
                    offset=at,
                    length=min(piece, total - at),
                )
            )
            for at in range(self._max_payload - CHUNK_REPLY_FIELDS, total, piece)
        ]

    def _collect(
        self, sent: Sequence[Pending], rest: Sequence[Pending], count: int
    ) -> list[StepResult]:
        """The results of the *count* steps of a packet."""
        total = self._started.result_bytes
        with self._transport.checking(f"a step of model {self._model!r}"):
            for fragment in sent[:-1]:
                if self._transport.expect(fragment, ChunkReply).flags & ChunkFlag.EXECUTED:
                    raise ValueError("a fragment was executed")
            reply = self._transport.expect(sent[-1], ChunkReply)
            if not reply.flags & ChunkFlag.EXECUTED:
                raise ValueError("it was not executed")
            check_size("result_bytes", reply.result_bytes, total)
            if count == 1:
                part = min(self._max_payload - CHUNK_REPLY_FIELDS, total)
                check_size("result", len(reply.data), part)
            data = bytearray(reply.data)
            for pending in rest:
                data += self._transport.expect(pending, ReadResultReply).data
            return self._results(reply, bytes(data), count)

    def _results(self, reply: ChunkReply, data: bytes, count: int) -> list[StepResult]:
        """Take apart what the packet of *count* steps has given; raises WireError, ValueError."""
        total = self._started.result_bytes
        reader = Reader(data, "the results")
        results = [self._result(reply.flags, reply.latency_us, reply, reader.take(total))]
        while len(results) < count:
            step = LATER_STEP.read(reader)
            has_more = step.flags & ChunkFlag.UNWRITTEN
            unwritten = LATER_UNWRITTEN.read(reader) if has_more else None
            results.append(self._result(step.flags, step.latency_us, unwritten, reader.take(total)))
        reader.finish()
        return results

    def _result(
        self, flags: int, latency_us: int, found: ChunkReply | LaterUnwritten | None, block: bytes
    ) -> StepResult:
        if not flags & ChunkFlag.EXECUTED:
            raise ValueError("it was not executed")
        size = self._started.output_bytes
        return StepResult(
            outputs=unpack(self._outputs, block[:size]),
            latency_us=None if flags & ChunkFlag.NO_TIMING else latency_us,
            watched=self._split_watched(block[size:]),
            unwritten=self._unwritten(found) if found and flags & ChunkFlag.UNWRITTEN else None,
            suspect=bool(flags & ChunkFlag.SUSPECT),
            vector_unit=_vector_unit(flags),
        )

    def _split_watched(self, data: bytes) -> dict[str, Array | int]:
        records: dict[str, Array | int] = {}
        at = 0
        for spec, mode in self._watched:
            size = _record_bytes(spec, mode)
            record = data[at : at + size]
            digest = mode == WatchMode.DIGEST
            records[spec.name] = (
                int.from_bytes(record, "little") if digest else spec.to_array(record)
            )
            at += size
        return records

    def _unwritten(self, found: ChunkReply | LaterUnwritten) -> Unwritten:
        if found.unwritten_output >= len(self._outputs):
            raise ValueError(f"output {found.unwritten_output} is unwritten")
        return Unwritten(
            found.unwritten_tensors,
            self._outputs[found.unwritten_output].name,
            found.unwritten_offset,
            found.unwritten_bytes,
        )


def _vector_unit(flags: int) -> VectorUnit | None:
    found = VectorUnit(
        rounding_lost=bool(flags & ChunkFlag.ROUNDING_LOST),
        misaligned=bool(flags & ChunkFlag.MISALIGNED),
        late=bool(flags & ChunkFlag.VECTOR_UNIT_LATE),
    )
    return found if found.rounding_lost or found.misaligned else None
