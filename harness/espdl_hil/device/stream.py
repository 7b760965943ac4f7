"""One stream of chunks: fragments out, result blocks in, many steps on their way at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from espdl_hil.device.errors import RequestError
from espdl_hil.device.replies import check_size
from espdl_hil.device.tensors import Array, StepResult, TensorSpec, Unwritten, VectorUnit, unpack
from espdl_hil.wire.messages import (
    Chunk,
    ChunkFlag,
    ChunkReply,
    ReadResult,
    ReadResultReply,
    WatchMode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.device.timing import Pending
    from espdl_hil.device.transport import Transport
    from espdl_hil.wire.messages import StartReply

    Progress = Callable[[int, int], object]

CHUNK_FIELDS: Final = 12  # bytes of a Chunk before its data
CHUNK_REPLY_FIELDS: Final = 30  # of a ChunkReply
READ_REPLY_FIELDS: Final = 4  # of a ReadResultReply
DIGEST_BYTES: Final = 4


def _record_bytes(spec: TensorSpec, mode: WatchMode) -> int:
    return DIGEST_BYTES if mode == WatchMode.DIGEST else spec.nbytes


def watched_bytes(watched: Sequence[tuple[TensorSpec, WatchMode]]) -> int:
    """Size of the watch records of one step."""
    return sum(_record_bytes(spec, mode) for spec, mode in watched)


class Stream:
    """Runs blocks of input through a started stream.

    Args:
        transport: The session's transport.
        model: The model's name, for errors.
        started: The device's answer to START.
        outputs: Graph outputs in their order.
        watched: Watched tensors in their order, with their mode.
    """

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
            RequestError: A step failed; names its chunk.
        """
        wanted = self._started.input_bytes
        steps: list[tuple[list[Pending], list[Pending]]] = []
        results: list[StepResult] = []
        try:
            for index, block in enumerate(blocks):
                if len(block) != wanted:
                    raise self._transport.failures.broken(
                        f"model {self._model!r} takes {wanted} bytes a step, "
                        f"its inputs have {len(block)}"
                    )
                steps.append((self._send(index, block), self._request_rest(index)))
                if progress is not None:
                    progress(index + 1, len(blocks))
            for sent, rest in steps:
                results.append(self._collect(sent, rest))
        except RequestError as error:
            self._transport.drain()
            raise RequestError(
                f"model {self._model!r}, chunk {len(results)}: {error.reason}",
                code=error.code,
                port=error.port,
                console_tail=error.console_tail,
                hint=error.hint,
            ) from error
        return results

    def _send(self, index: int, block: bytes) -> list[Pending]:
        piece = self._max_payload - CHUNK_FIELDS
        return [
            self._transport.submit(
                Chunk(
                    stream=self._started.stream,
                    index=index,
                    offset=at,
                    data=block[at : at + piece],
                ),
                self._transport.timing.step_s,
            )
            for at in range(0, max(1, len(block)), piece)
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
                ),
                self._transport.timing.reply_s,
            )
            for at in range(self._max_payload - CHUNK_REPLY_FIELDS, total, piece)
        ]

    def _collect(self, sent: Sequence[Pending], rest: Sequence[Pending]) -> StepResult:
        total = self._started.result_bytes
        with self._transport.checking(f"a step of model {self._model!r}"):
            for fragment in sent[:-1]:
                if self._transport.expect(fragment, ChunkReply).flags & ChunkFlag.EXECUTED:
                    raise ValueError("a fragment was executed")
            reply = self._transport.expect(sent[-1], ChunkReply)
            if not reply.flags & ChunkFlag.EXECUTED:
                raise ValueError("it was not executed")
            data = bytearray(reply.data)
            check_size("result_bytes", reply.result_bytes, total)
            check_size("result", len(data), min(self._max_payload - CHUNK_REPLY_FIELDS, total))
            for pending in rest:
                data += self._transport.expect(pending, ReadResultReply).data
            check_size("whole result", len(data), total)
            if reply.flags & ChunkFlag.UNWRITTEN and reply.unwritten_output >= len(self._outputs):
                raise ValueError(f"output {reply.unwritten_output} is unwritten")
        size = self._started.output_bytes
        return StepResult(
            outputs=unpack(self._outputs, bytes(data[:size])),
            latency_us=None if reply.flags & ChunkFlag.NO_TIMING else reply.latency_us,
            watched=self._split_watched(bytes(data[size:])),
            unwritten=self._unwritten(reply),
            suspect=bool(reply.flags & ChunkFlag.SUSPECT),
            vector_unit=_vector_unit(reply.flags),
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

    def _unwritten(self, reply: ChunkReply) -> Unwritten | None:
        if not reply.flags & ChunkFlag.UNWRITTEN:
            return None
        name = self._outputs[reply.unwritten_output].name
        return Unwritten(
            reply.unwritten_tensors, name, reply.unwritten_offset, reply.unwritten_bytes
        )


def _vector_unit(flags: int) -> VectorUnit | None:
    found = VectorUnit(
        rounding_lost=bool(flags & ChunkFlag.ROUNDING_LOST),
        misaligned=bool(flags & ChunkFlag.MISALIGNED),
        late=bool(flags & ChunkFlag.VECTOR_UNIT_LATE),
    )
    return found if found.rounding_lost or found.misaligned else None
