"""``firmware/host/hil_host.h`` through cffi, which reads the header itself."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import cffi

from espdl_hil.errors import ConfigError
from espdl_hil.simulator.sources import firmware_dir

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "host/hil_host.h"

# What cffi's parser does not take: C++ linkage, then every directive but a plain number.
_NO_DECLARATION = re.compile(
    r"^#ifdef __cplusplus\n.*?^#endif$|^#(?!define \w+ \d).*?$", re.MULTILINE | re.DOTALL
)

ffi = cffi.FFI()


def declarations(header: str) -> str:
    """Return the C declarations of a header as ``cffi.FFI.cdef`` takes them."""
    return _NO_DECLARATION.sub("", header)


@functools.cache
def _declare() -> None:
    ffi.cdef(declarations((firmware_dir() / HEADER).read_text(encoding="utf-8")))


def bind(library: Path) -> Any:
    """Load a compiled core.

    Returns:
        Its functions and the header's constants, as cffi gives them.

    Raises:
        ConfigError: The library cannot be loaded, or speaks another version of the ABI.
    """
    _declare()
    hint = f"delete {library}"
    try:
        core = ffi.dlopen(str(library))
        found = core.hil_abi_version()
    except (OSError, AttributeError) as error:
        raise ConfigError(f"cannot load the compiled firmware core: {error}", hint=hint) from None
    if found != core.HIL_ABI_VERSION:
        raise ConfigError(
            f"the firmware core has ABI version {found}, {HEADER} is of {core.HIL_ABI_VERSION}",
            hint=hint,
        )
    return core
