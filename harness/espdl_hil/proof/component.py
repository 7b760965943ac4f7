"""A proven case as an ESP-IDF component: its files, a header, test vectors. Runs no device."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from espdl_hil import interpreter
from espdl_hil.errors import ConfigError
from espdl_hil.espdl import write_package
from espdl_hil.proof.comparison import interpreter_tolerance
from espdl_hil.proof.package import offline_name, streaming_name
from espdl_hil.report import SILICON
from espdl_hil.simulator.sources import firmware_dir
from espdl_hil.targets import KNOWN_ESPDL_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from espdl_hil.compare import Tensors
    from espdl_hil.proof.expected import Expected
    from espdl_hil.report import Row


RODATA, PARTITION, SDCARD = "rodata", "partition", "sdcard"
EMBEDDINGS = (RODATA, PARTITION, SDCARD)
MANIFEST = "manifest.json"
CLASS = "espdl_stream"  # the component of the streaming class, beside this one
PACKAGE = "models.bin"
_TYPES = {"i1": "kInt8", "u1": "kUint8", "i2": "kInt16", "u2": "kUint16", "i4": "kInt32"}
_MAGIC = b"ESV1"  # firmware/components/espdl_stream/include/espdl_stream/self_test.h
_TEMPLATES = {
    "include/{name}.h": "model.h.j2",
    "{name}.cpp": "model.cpp.j2",
    "CMakeLists.txt": "CMakeLists.txt.j2",
    "idf_component.yml": "idf_component.yml.j2",
}


@dataclass(frozen=True)
class Component:
    """What is to be exported.

    Attributes:
        expected: The case, its files and what they give.
        row: The row of the results that proved it.
        name: Of the component, its header and its C++ namespace.
        embed: ``rodata``, ``partition`` or ``sdcard``: where the model lies on the device.
        label: Of the flash partition.
        package: Whether to write the models package of the partition, too.
        command: The command line, for the record.
        environment: Component to version, for the record.
    """

    expected: Expected
    row: Row
    name: str
    embed: str = RODATA
    label: str = "models"
    package: bool = False
    command: str = ""
    environment: Mapping[str, str] | None = None


def identifier(text: str) -> str:
    """Return *text* as a C++ name: ``bc.resnet-int8`` becomes ``bc_resnet_int8``."""
    name = re.sub(r"\W", "_", text)
    return f"m{name}" if name[0].isdigit() else name


def component_name(expected: Expected) -> str:
    """Return the name that a component has by default, ``tcn_int8_chunk3``."""
    return identifier(streaming_name(expected.case))


def write_component(component: Component, folder: Path) -> list[Path]:
    """Write the component, and the streaming class beside it; returns the component's files.

    The folder is made if need be; an earlier export in it is replaced.

    Raises:
        ConfigError: there is something else in the folder, or it cannot be written; the streaming
            class beside it is another one.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise ConfigError(
            f"{folder} is not empty and holds no earlier export", hint="name a new folder with -o"
        )
    files = _files(component)
    files[MANIFEST] = (json.dumps(_manifest(component, files), indent=1) + "\n").encode()
    try:
        _write_class(folder.parent / CLASS)
        if folder.exists():
            shutil.rmtree(folder)
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from None
    return [folder / name for name in files]


def vectors_of(expected: Expected) -> bytes:
    """The self-test's file: the chunks of the proof, and what the stream gave at each.

    Unbound inputs and all outputs stand in the file's order, see ``self_test.h``.
    """
    steps, outputs = expected.chunks, expected.stream
    inputs = [info.name for info in expected.streaming_graph.inputs if info.name in steps[0]]
    names = [info.name for info in expected.streaming_graph.outputs]
    blocks = [
        (_block(step, inputs), _block(seen, names))
        for step, seen in zip(steps, outputs, strict=True)
    ]
    sizes = [len(block) for block in blocks[0]]
    digest = hashlib.sha256(expected.streaming_path.read_bytes()).digest()
    header = _MAGIC + struct.pack("<III", len(blocks), *sizes) + digest
    return header + b"".join(part for block in blocks for part in block)


def _block(tensors: Tensors, names: Iterable[str]) -> bytes:
    return b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in names)


def _files(component: Component) -> dict[str, bytes]:
    """Every file but the manifest, by its path."""
    expected, name = component.expected, component.name
    streaming = expected.streaming_path.read_bytes()
    offline = expected.artifacts.offline.read_bytes()
    files = {
        f"models/{name}.espdl": streaming,
        f"models/{name}_offline.espdl": offline,
        f"vectors/{name}_vectors.bin": vectors_of(expected),
    }
    if component.package or component.embed == PARTITION:
        files[PACKAGE] = write_package([(name, streaming), (f"{name}_offline", offline)])
    facts = _facts(component, hashlib.sha256(streaming).hexdigest())
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - C++ and CMake, no HTML
    )
    for path, template in _TEMPLATES.items():
        source = resources.files("espdl_hil.proof").joinpath("templates", template)
        text = environment.from_string(source.read_text("utf-8")).render(facts)
        files[path.format(name=name)] = text.encode()
    return files


def _facts(component: Component, sha256: str) -> dict[str, Any]:
    """What the templates speak of."""
    expected = component.expected
    plan, case = expected.plan, expected.case
    session = interpreter.load(expected.streaming_graph, case.target)
    alignments = {a.output: a for a in plan.alignments}
    inputs = [
        {
            **_port(info.name, info.shape, info.dtype, info.exponents),
            "frame_axis": plan.frame_axes.get(info.name, -1),
            "chunk_frames": plan.chunk_frames.get(info.name, 0),
        }
        for info in session.inputs
    ]
    outputs = [
        {
            **_port(info.name, seen.shape, seen.dtype, info.exponents),
            "frame_axis": alignments[info.name].frame_axis,
            "chunk_frames": alignments[info.name].out_frames_per_chunk,
            "latency_frames": alignments[info.name].latency_frames,
            "warm_up_frames": alignments[info.name].warmup_frames,
        }
        for info in expected.streaming_graph.outputs
        for seen in [expected.stream[0][info.name]]
    ]
    return {
        "name": component.name,
        "guard": f"{component.name.upper()}_H_",
        "case": case,
        "sha256": sha256,
        "inputs": inputs,
        "outputs": outputs,
        "states": [{"input": name, "output": source} for name, source in plan.state.items()],
        "tolerance_lsb": interpreter_tolerance(expected, SILICON).max_lsb,
        "embed": component.embed,
        "label": component.label,
        "class": CLASS,
        "package": PACKAGE,
        "versions": KNOWN_ESPDL_VERSIONS,
        "plan": plan,
    }


def _port(
    name: str, shape: Sequence[int], dtype: np.dtype[Any], exponents: Sequence[int]
) -> dict[str, Any]:
    per_channel = len(exponents) > 1
    return {
        "name": name,
        "type": _TYPES.get(dtype.str[1:], "kFloat"),
        "exponent": 0 if per_channel else exponents[0],
        "per_channel": per_channel,
        "dims": tuple(shape),
        "bytes": int(np.prod(shape)) * dtype.itemsize,
    }


def _manifest(component: Component, files: Mapping[str, bytes]) -> dict[str, Any]:
    case = component.expected.case
    return {
        "schema": 1,
        "name": component.name,
        "model": case.model.name,
        "target": case.target,
        "bits": case.bits,
        "chunk_frames": case.chunk_frames,
        "embed": component.embed,
        "command": component.command,
        "versions": dict(component.environment or {}),
        "espdl_versions": list(KNOWN_ESPDL_VERSIONS),
        "verdict": component.row.to_json(),
        "proven_as": {
            f"models/{component.name}.espdl": streaming_name(case),
            f"models/{component.name}_offline.espdl": offline_name(case),
        },
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }


def _write_class(folder: Path) -> None:
    """Put the streaming class there, if it is not there yet.

    Raises:
        ConfigError: something else is.
    """
    source = firmware_dir() / "components" / CLASS
    wanted = _tree(source)
    if not folder.exists():
        shutil.copytree(source, folder)
    elif _tree(folder) != wanted:
        raise ConfigError(
            f"{folder} is not the streaming class of this version of espdl-hil",
            hint="it was changed, or is of another version: move it away and export again",
        )


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
