"""Compiles the firmware core for this host, once per content. Knows the compiler and the cache."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from espdl_hil.errors import ConfigError
from espdl_hil.simulator.sources import core_manifest, core_sources

if TYPE_CHECKING:
    from pathlib import Path

CACHE_NAME = "espdl-hil"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC")
COMPILE_TIMEOUT_S = 300
# Kills its process group, a compiler's own processes included, when its standard input closes.
_ENDED_WITH_US = ("sh", "-c", 'exec 3<&0; (read _ <&3; kill -KILL 0) & exec "$@" 3<&-', "sh")


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
    identity = "\n".join((core_manifest(), _version(compiler), shlex.join((*compiler, *FLAGS))))
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
    """Make the library, under its lock; whatever ends this process ends the compiler, too."""
    sources = core_sources()
    includes = [f"-I{folder}" for folder in sources.include_dirs]
    folder = library.with_suffix(".unfinished")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    made = folder / library.name
    command = [*compiler, *FLAGS, *includes, *map(str, sources.files), "-o", str(made)]
    try:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*_ENDED_WITH_US, *command],
                stdin=subprocess.PIPE,  # open until the compiler is to end
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(folder)},
                start_new_session=True,
            )
            with process:
                code = process.wait(COMPILE_TIMEOUT_S)
        if code:
            said = (folder / "log").read_text(errors="replace")
            raise _failure(command, said)
        made.replace(library)
    except subprocess.TimeoutExpired:
        raise _late(command) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _version(compiler: list[str]) -> str:
    command = [*compiler, "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _late(command) from None
    if done.returncode:
        raise _failure(command, done.stderr or done.stdout)
    return done.stdout


def _late(command: list[str]) -> ConfigError:
    return ConfigError(
        f"compiling the firmware core took more than {COMPILE_TIMEOUT_S} s",
        hint=f"the command was: {shlex.join(command)}",
    )


def _failure(command: list[str], said: str) -> ConfigError:
    lines = said.splitlines()
    first = next((line for line in lines if "error" in line), lines[-1] if lines else "")
    return ConfigError(
        f"the firmware core does not compile: {first}",
        hint=f"the command was: {shlex.join(command)}",
    )
