"""Compiles the firmware core for this host, once per content. Knows the compiler and the cache."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from espdl_hil.errors import ConfigError
from espdl_hil.simulator.sources import core_manifest, core_sources

CACHE_NAME = "espdl-hil"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC")
COMPILE_TIMEOUT_S = 300


def core_library() -> Path:
    """Return the firmware core as a shared library, compiling it when it is new.

    The library lies in the user's cache under a key of its sources, the
    compiler's version and the flags. Processes that want the same one wait
    for each other; an unfinished one is never visible.

    Returns:
        Path of the library.

    Raises:
        ConfigError: No C++ compiler, sources missing, or they do not compile.
    """
    compiler = find_compiler()
    version = _run([*compiler, "--version"])
    identity = "\n".join((core_manifest(), version, shlex.join((*compiler, *FLAGS))))
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    cache = user_cache_path(CACHE_NAME) / "core"
    library = cache / f"hil_core-{key}.so"
    if library.is_file():
        return library
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{key}.lock", timeout=COMPILE_TIMEOUT_S):
            if not library.is_file():
                _compile(compiler, library)
    except (OSError, Timeout) as error:
        raise ConfigError(
            f"cannot keep the compiled firmware core in {cache}: {error}",
            hint="make the folder writable, or set XDG_CACHE_HOME to one that is",
        ) from None
    return library


def find_compiler() -> list[str]:
    """The command of a C++ compiler, ``CXX`` or the first on ``PATH``.

    Raises:
        ConfigError: there is none.
    """
    chosen = shlex.split(os.environ.get("CXX", ""))
    candidates = [chosen] if chosen else [[name] for name in COMPILERS]
    for candidate in candidates:
        if shutil.which(candidate[0]):
            return candidate
    named = chosen[0] if chosen else ", ".join(COMPILERS)
    raise ConfigError(
        f"the simulated devkit compiles the firmware core and found no C++17 compiler ({named})",
        hint="install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install), "
        "or set CXX",
    )


def _compile(compiler: list[str], library: Path) -> None:
    sources = core_sources()
    includes = [f"-I{folder}" for folder in sources.include_dirs]
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unfinished = Path(folder) / library.name
        _run([*compiler, *FLAGS, *includes, *map(str, sources.files), "-o", str(unfinished)])
        unfinished.replace(library)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=COMPILE_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "").splitlines()
        first = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        raise ConfigError(
            f"the firmware core does not compile: {first}",
            hint=f"the command was: {shlex.join(command)}",
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"compiling the firmware core took more than {COMPILE_TIMEOUT_S} s",
            hint=f"the command was: {shlex.join(command)}",
        ) from None
    return done.stdout
