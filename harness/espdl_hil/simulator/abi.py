"""``firmware/host/hil_host.h`` in ctypes: the same names, the same layout, nothing else."""

# mypy: disable-error-code="misc"
from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int16,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ABI_VERSION = 2
MAX_NAME = 512
MAX_RANK = 8
FLAG_SIMULATED = 1

INPUT, OUTPUT, NODE_OUTPUT = range(3)

# Error codes of harness/espdl_hil/wire/protocol.md, section 4, that a model runner can give.
OK = 0
NO_SUCH_TENSOR = 7
OUT_OF_MEMORY = 10
LOAD_FAILED = 13
RUN_FAILED = 19
NOT_RETAINED = 20


class Memory(Structure):
    """hil_memory."""

    _fields_ = [
        ("internal_free", c_uint32),
        ("internal_total", c_uint32),
        ("internal_largest", c_uint32),
        ("psram_free", c_uint32),
        ("psram_total", c_uint32),
        ("psram_largest", c_uint32),
    ]


class Tensor(Structure):
    """hil_tensor."""

    _fields_ = [
        ("name", c_char * MAX_NAME),
        ("name_size", c_uint32),
        ("dtype", c_uint8),
        ("rank", c_uint8),
        ("exponent", c_int16),
        ("flags", c_uint16),
        ("bytes", c_uint32),
        ("dims", c_uint32 * MAX_RANK),
    ]


class Buffer(Structure):
    """hil_bytes and hil_buffer."""

    _fields_ = [("data", c_void_p), ("size", c_uint32)]


class Capture(Structure):
    """hil_capture."""

    _fields_ = [("index", c_uint32), ("buffer", Buffer)]


class Reason(Structure):
    """hil_reason."""

    _fields_ = [("text", c_void_p), ("capacity", c_size_t)]


LOAD = CFUNCTYPE(
    c_int32, c_void_p, c_void_p, c_uint32, c_void_p, c_uint32, POINTER(c_uint32), Reason
)
UNLOAD = CFUNCTYPE(None, c_void_p, c_uint32)
COUNT = CFUNCTYPE(c_uint32, c_void_p, c_uint32, c_uint32)
DESCRIBE = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_uint32, c_uint32, POINTER(Tensor))
FIND = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p, c_uint32, POINTER(c_uint32))
RESET = CFUNCTYPE(c_int32, c_void_p, c_uint32, Reason)
RETAIN = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_uint32, Reason)
RUN = CFUNCTYPE(
    c_int32,
    c_void_p,
    c_uint32,
    POINTER(Buffer),
    c_uint32,
    POINTER(Buffer),
    c_uint32,
    POINTER(Capture),
    c_uint32,
    Reason,
)
READ = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_uint32, c_uint32, c_void_p, c_uint32)
MEMORY = CFUNCTYPE(None, c_void_p, POINTER(Memory))
NOW_US = CFUNCTYPE(c_uint64, c_void_p)
REBOOT = CFUNCTYPE(None, c_void_p)


class Runner(Structure):
    """hil_runner."""

    _fields_ = [
        ("context", c_void_p),
        ("load", LOAD),
        ("unload", UNLOAD),
        ("count", COUNT),
        ("describe", DESCRIBE),
        ("find", FIND),
        ("reset", RESET),
        ("retain", RETAIN),
        ("run", RUN),
        ("read", READ),
        ("memory", MEMORY),
        ("now_us", NOW_US),
        ("reboot", REBOOT),
    ]


class Config(Structure):
    """hil_config."""

    _fields_ = [
        ("abi_version", c_uint32),
        ("flags", c_uint32),
        ("target", c_char_p),
        ("idf_version", c_char_p),
        ("espdl_version", c_char_p),
        ("app_version", c_char_p),
        ("app_sha256", c_uint8 * 32),
        ("boot_nonce", c_uint64),
        ("chip_revision", c_uint16),
        ("cpu_mhz", c_uint16),
        ("models", c_void_p),
        ("models_size", c_size_t),
        ("max_payload", c_uint32),
        ("window", c_uint32),
        ("max_models", c_uint32),
        ("max_watch", c_uint32),
        ("max_upload", c_uint32),
    ]


def bind(library: Path) -> ctypes.CDLL:
    """Load a compiled core and declare its functions.

    Raises:
        ConfigError: The library cannot be loaded, or speaks another version of the ABI.
    """
    try:
        core = ctypes.CDLL(str(library))
    except OSError as error:
        raise ConfigError(
            f"cannot load the compiled firmware core: {error}", hint=f"delete {library}"
        ) from None
    signatures = {
        "hil_abi_version": (c_uint32, []),
        "hil_core_create": (c_void_p, [POINTER(Config), POINTER(Runner), Reason]),
        "hil_core_destroy": (None, [c_void_p]),
        "hil_core_feed": (c_size_t, [c_void_p, c_char_p, c_size_t]),
        "hil_core_poll": (c_int32, [c_void_p]),
        "hil_core_drain": (c_size_t, [c_void_p, c_void_p, c_size_t]),
        "hil_core_max_frame": (c_size_t, [c_void_p]),
        "hil_core_store_error": (c_char_p, [c_void_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(core, name)
        function.restype, function.argtypes = result, arguments
    if core.hil_abi_version() != ABI_VERSION:
        raise ConfigError(
            f"the firmware core has ABI version {core.hil_abi_version()}, the simulated devkit "
            f"speaks {ABI_VERSION}",
            hint="update harness/espdl_hil/simulator/abi.py together with firmware/host/hil_host.h",
        )
    return core
