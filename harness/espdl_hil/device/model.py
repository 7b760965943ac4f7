"""One loaded model: describe, reset, bind, watch, stream, read, unload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from espdl_hil.device.errors import StaleArtifactError
from espdl_hil.device.listing import read_list
from espdl_hil.device.replies import check_size
from espdl_hil.device.stream import Stream, watched_bytes
from espdl_hil.device.tensors import Array, StepResult, TensorSpec, pack
from espdl_hil.wire import messages as wire
from espdl_hil.wire.messages import StartFlag, TensorKind, WatchMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from espdl_hil.device.stream import Progress
    from espdl_hil.device.transport import Transport

READ_TENSOR_REPLY_FIELDS: Final = 8  # bytes of a ReadTensorReply before its data


@dataclass(frozen=True)
class Description:
    """Graph inputs and outputs, each in the file's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Model:
    """A model in the device's memory, until :meth:`unload` or the end of the session."""

    def __init__(self, transport: Transport, name: str, loaded: wire.Loaded) -> None:
        self.name = name
        self.sha256 = loaded.sha256.hex()
        self.size = loaded.size
        self.internal_bytes = loaded.internal_bytes
        self.psram_bytes = loaded.psram_bytes
        self._transport = transport
        self._handle = loaded.handle
        self._counts = {
            TensorKind.INPUT: loaded.inputs,
            TensorKind.OUTPUT: loaded.outputs,
            TensorKind.NODE_OUTPUT: loaded.intermediates,
        }
        self._listed: dict[TensorKind, tuple[TensorSpec, ...]] = {}
        self._bound: frozenset[str] = frozenset()
        self._watched: tuple[tuple[TensorSpec, WatchMode], ...] = ()

    # -- what it is --------------------------------------------------------------

    def describe(self) -> Description:
        """Graph inputs and outputs; asked once."""
        return Description(self._list(TensorKind.INPUT), self._list(TensorKind.OUTPUT))

    def intermediates(self) -> dict[str, TensorSpec]:
        """Every node output by name, in execution order; asked once."""
        return {spec.name: spec for spec in self._list(TensorKind.NODE_OUTPUT)}

    def _list(self, kind: TensorKind) -> tuple[TensorSpec, ...]:
        if kind in self._listed:
            return self._listed[kind]
        found = read_list(
            self._transport,
            lambda first: wire.Describe(handle=self._handle, kind=kind, first=first),
            wire.DescribeReply,
            lambda page: [TensorSpec.from_wire(tensor) for tensor in page.tensors],
        )
        if len(found) != self._counts[kind]:
            raise self._transport.failures.broken(
                f"model {self.name!r} has {len(found)} {kind.name.lower()}s, "
                f"it was loaded with {self._counts[kind]}"
            )
        self._listed[kind] = found
        return found

    # -- state ---------------------------------------------------------------------

    def reset(self) -> None:
        """Zero caches and bound state."""
        self._transport.ask(wire.Reset(handle=self._handle), wire.ResetReply)

    def bind_state(self, pairs: Mapping[str, str]) -> int:
        """Feed graph outputs back into graph inputs on the device; replaces earlier bindings.

        A bound input is not sent any more. State starts from zero.

        Args:
            pairs: Graph output to the graph input that it becomes at the next step.

        Returns:
            Bytes of state.

        Raises:
            RequestError: Shape, type or exponent of a pair differ, or a name is unknown.
        """
        items = tuple(wire.StatePair(output=source, input=sink) for source, sink in pairs.items())
        request = wire.BindState(handle=self._handle, pairs=items)
        reply = self._transport.ask(request, wire.BindStateReply)
        self._bound = frozenset(pairs.values())
        return reply.state_bytes

    def watch(self, names: Iterable[str], *, digests: bool = False) -> None:
        """Record tensors at each step of the streams to come; replaces the earlier list.

        Args:
            names: Node outputs, graph inputs or graph outputs; none ends watching.
            digests: A CRC-32 of each instead of whole values.

        Raises:
            RequestError: A name is unknown, or there are too many.
        """
        wanted = tuple(names)
        mode = WatchMode.DIGEST if digests else WatchMode.VALUE
        items = tuple(wire.WatchItem(mode=mode, name=name) for name in wanted)
        reply = self._transport.ask(wire.Watch(handle=self._handle, items=items), wire.WatchReply)
        with self._transport.checking(f"what is watched of model {self.name!r}"):
            watched = tuple(
                (TensorSpec.from_wire(tensor, name), mode)
                for tensor, name in zip(reply.tensors, wanted, strict=True)
            )
            check_size("watch_bytes", reply.watch_bytes, watched_bytes(watched))
        self._watched = watched

    # -- running -------------------------------------------------------------------

    def stream(
        self,
        chunks: Sequence[Mapping[str, Array]],
        *,
        reset: bool = False,
        retain: bool = False,
        progress: Progress | None = None,
    ) -> list[StepResult]:
        """Run one step per chunk, pipelined.

        Args:
            chunks: Arrays by graph input, each exactly of the described type and shape.
            reset: Zero the state first; otherwise it goes on from the step before.
            retain: Keep every node output for :meth:`read` (slow).
            progress: Called with the chunks sent so far, and all.

        Returns:
            One result a chunk, in order.

        Raises:
            ValueError: An array does not fit its input; nothing was run.
            StaleArtifactError: The device runs another model, or restarted in between.
            RequestError: A step failed on the device.
        """
        described = self.describe()
        inputs = [spec for spec in described.inputs if spec.name not in self._bound]
        blocks = [pack(inputs, chunk) for chunk in chunks]
        flags = (StartFlag.RESET if reset else 0) | (StartFlag.RETAIN if retain else 0)
        started = self._transport.ask(wire.Start(handle=self._handle, flags=flags), wire.StartReply)
        self._check_fresh(started)
        with self._transport.checking(f"the stream of model {self.name!r}"):
            size = sum(spec.nbytes for spec in described.outputs)
            check_size("input_bytes", started.input_bytes, sum(spec.nbytes for spec in inputs))
            check_size("output_bytes", started.output_bytes, size)
            check_size("result_bytes", started.result_bytes, size + watched_bytes(self._watched))
        stream = Stream(self._transport, self.name, started, described.outputs, self._watched)
        return stream.run(blocks, progress)

    def run(self, inputs: Mapping[str, Array], *, reset: bool = False) -> StepResult:
        """Run one step; arguments and errors as :meth:`stream`."""
        return self.stream([inputs], reset=reset)[0]

    def read(self, name: str) -> Array:
        """Read a tensor of the last step: a graph output or input, or what was watched or retained.

        Raises:
            ValueError: The model has no such tensor.
            RequestError: The device did not keep it.
        """
        described = self.describe()
        specs = {spec.name: spec for spec in (*described.inputs, *described.outputs)}
        spec = specs.get(name) or self.intermediates().get(name)
        if spec is None:
            known = ", ".join((*specs, *self.intermediates()))
            raise ValueError(f"model {self.name!r} has no tensor {name!r}; there are: {known}")
        page = self._transport.max_payload - READ_TENSOR_REPLY_FIELDS
        data = bytearray()
        while len(data) < spec.nbytes:
            request = wire.ReadTensor(
                handle=self._handle, offset=len(data), length=spec.nbytes - len(data), name=name
            )
            reply = self._transport.ask(request, wire.ReadTensorReply)
            with self._transport.checking(f"tensor {name!r}"):
                check_size("total", reply.total, spec.nbytes)
                check_size("data", len(reply.data), min(page, spec.nbytes - len(data)))
            data += reply.data
        return spec.to_array(bytes(data))

    def unload(self) -> None:
        """Free the model's memory."""
        self._transport.ask(wire.Unload(handle=self._handle), wire.UnloadReply)

    def _check_fresh(self, started: wire.StartReply) -> None:
        """What is about to run is what was loaded, on the boot that was greeted."""
        hello = self._transport.hello
        if hello is None or started.boot_nonce != hello.boot_nonce:
            raise StaleArtifactError(
                f"model {self.name!r}: the device has restarted since it was greeted",
                port=self._transport.name,
                hint="open a new session and load the model again",
            )
        if started.model_sha256.hex() != self.sha256:
            raise StaleArtifactError(
                f"model {self.name!r}: the device runs bytes with hash "
                f"{started.model_sha256.hex()[:16]}…, loaded were {self.sha256[:16]}…",
                port=self._transport.name,
                hint="load the model again; if it happens again, the device's memory is damaged",
            )
