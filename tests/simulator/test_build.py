"""Compiling the core: once, in one place, and with words for what is missing."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.simulator import abi, build, sources
from espdl_hil.simulator.build import core_library


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "espdl-hil" / "core"


@pytest.fixture
def one_file(tmp_path, monkeypatch):
    """Stands for the core's sources: quick to compile, easy to break."""
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" unsigned hil_abi_version() { return 99; }\n')
    monkeypatch.setattr(build, "core_sources", lambda: sources.CoreSources((), (source,)))
    monkeypatch.setattr(build, "core_manifest", source.read_text)
    return source


def test_the_core_compiles_and_speaks_the_abi():
    core = abi.bind(core_library())
    assert core.hil_abi_version() == core.HIL_ABI_VERSION


def test_every_declaration_of_the_header_is_bound():
    header = (sources.firmware_dir() / abi.HEADER).read_text()
    functions = set(re.findall(r"\b(hil_\w+)\((?!\*)", re.sub(r"//.*", "", header)))
    constants = set(re.findall(r"^#define (HIL_\w+) ", header, re.MULTILINE))
    assert {"hil_core_feed", "hil_core_stats", "HIL_OK", "HIL_MAX_RANK"} <= functions | constants
    core = abi.bind(core_library())
    for name in functions | constants:
        assert getattr(core, name) is not None
    assert {name for name, _ in abi.ffi.typeof("hil_bytes").fields} == {"data", "size"}
    with pytest.raises(AttributeError):
        _ = core.hil_core_peel


def test_devkits_may_start_side_by_side():
    script = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from espdl_hil.simulator import abi, build\n"
        "library = build.core_library()\n"
        "with ThreadPoolExecutor(16) as pool:\n"
        "    print(len({core.HIL_OK for core in pool.map(abi.bind, [library] * 16)}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_what_cffi_is_given_of_a_header():
    header = (
        "#ifndef A_H_\n#define A_H_\n#include <stdint.h>\n"
        '#ifdef __cplusplus\nextern "C" {\n#endif\n'
        "#define SIZE 4u  // bytes\nint f(void);\n"
        "#ifdef __cplusplus\n}\n#endif\n#endif  // A_H_\n"
    )
    assert abi.declarations(header).split("\n") == (
        ["", "", "", "", "#define SIZE 4u  // bytes", "int f(void);", "", "", ""]
    )


def test_it_is_compiled_once(cache, one_file):
    library = core_library()
    assert library.parent == cache
    made = library.stat().st_mtime_ns
    assert core_library() == library
    assert library.stat().st_mtime_ns == made
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".so"]


def test_changed_sources_are_compiled_anew(cache, one_file):
    first = core_library()
    one_file.write_text(one_file.read_text() + "// changed\n")
    assert core_library() != first


def test_another_compiler_compiles_anew(cache, one_file, monkeypatch):
    first = core_library()
    monkeypatch.setenv("CXX", "c++ -DOTHER")
    assert core_library() != first


def test_those_who_want_it_at_once_share_it(cache, one_file, monkeypatch):
    runs = []
    compile_core = build._compile
    monkeypatch.setattr(build, "_compile", lambda *a: (runs.append(a), compile_core(*a)))
    with ThreadPoolExecutor(4) as pool:
        libraries = {future.result() for future in [pool.submit(core_library) for _ in range(4)]}
    assert len(libraries) == 1
    assert len(runs) == 1


def test_no_compiler(cache, one_file, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError) as error:
        core_library()
    assert str(error.value) == (
        "the simulated devkit compiles the firmware core and found no C++17 compiler "
        "(c++, g++, clang++)\n"
        "  hint: install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install), "
        "or set CXX"
    )


def test_a_chosen_compiler_that_is_missing(cache, one_file, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(ConfigError, match=r"found no C\+\+17 compiler \(no-such-compiler\)"):
        core_library()


def test_sources_that_do_not_compile(cache, one_file):
    one_file.write_text("int broken = ;\n")
    with pytest.raises(ConfigError) as error:
        core_library()
    message, hint = str(error.value).split("\n")
    assert message.startswith(f"the firmware core does not compile: {one_file}:1:14: error: ")
    assert hint.startswith("  hint: the command was: ")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


SLOW = """#!/bin/sh
[ "$1" = --version ] && exec c++ --version
sleep 60 &
echo $$ $! > {pids}
[ -e {ready} ] || wait
exec c++ "$@"
"""


def test_a_killed_process_leaves_no_compiler(tmp_path, cache, one_file, monkeypatch):
    pids, ready, slow = (tmp_path / name for name in ("pids", "ready", "slow"))
    slow.write_text(SLOW.format(pids=pids, ready=ready))
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    builder = multiprocessing.get_context("fork").Process(target=core_library)
    builder.start()
    assert wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    compilers = pids.read_text().split()
    builder.kill()
    builder.join()
    assert wait_until(lambda: not any(map(is_running, compilers)), 1)
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".unfinished"]
    ready.touch()
    assert core_library().is_file()  # and so is a compiler that leaves a process of its own
    assert wait_until(lambda: not any(map(is_running, pids.read_text().split())), 1)
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".so"]


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true, limit_s=20):
    end_s = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def test_a_cache_that_is_not_a_folder(tmp_path, one_file, monkeypatch):
    monkeypatch.setattr(build, "user_cache_path", lambda name: tmp_path / "one.cpp" / name)
    with pytest.raises(ConfigError) as error:
        core_library()
    assert str(error.value).startswith("cannot keep the compiled firmware core in ")
    assert str(error.value).endswith(
        "\n  hint: make the folder writable, or set XDG_CACHE_HOME to one that is"
    )


def test_a_library_of_another_abi(cache, one_file):
    library = core_library()
    with pytest.raises(ConfigError) as error:
        abi.bind(library)
    assert str(error.value) == (
        f"the firmware core has ABI version 99, host/hil_host.h is of 4\n  hint: delete {library}"
    )


def test_a_library_that_is_no_core(cache, one_file):
    one_file.write_text('extern "C" int something() { return 0; }\n')
    library = core_library()
    with pytest.raises(ConfigError, match=r"cannot load the compiled firmware core: .*hil_abi_ver"):
        abi.bind(library)


def test_a_library_that_cannot_be_loaded(tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    with pytest.raises(ConfigError) as error:
        abi.bind(broken)
    assert str(error.value).startswith("cannot load the compiled firmware core: ")
    assert str(error.value).endswith(f"\n  hint: delete {broken}")


def test_a_list_that_names_a_missing_file(tmp_path, monkeypatch):
    listing = tmp_path / "host" / "sources.txt"
    listing.parent.mkdir()
    listing.write_text("# nothing\n-Ihost\nhost/gone.cpp  # was here\n")
    monkeypatch.setattr(sources, "firmware_dir", lambda: tmp_path)
    with pytest.raises(ConfigError) as error:
        sources.core_sources()
    assert str(error.value) == (
        f"{listing} lists {tmp_path / 'host/gone.cpp'}, which does not exist"
    )


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes the package look as if it lay alone in a folder."""
    package = tmp_path / "harness" / "espdl_hil"
    package.mkdir(parents=True)
    monkeypatch.setattr(sources, "__file__", str(package / "simulator" / "sources.py"))
    return package


def test_an_installed_package_brings_the_firmware(installed):
    (installed / "_firmware" / "host").mkdir(parents=True)
    (installed / "_firmware" / "host" / "sources.txt").touch()
    assert sources.firmware_dir() == installed / "_firmware"


def test_no_firmware_at_all(installed, tmp_path):
    with pytest.raises(ConfigError) as error:
        sources.firmware_dir()
    assert str(error.value) == (
        f"the firmware sources are missing: no host/sources.txt in {installed / '_firmware'} "
        f"or {tmp_path / 'firmware'}\n"
        "  hint: reinstall espdl-hil, or run from a checkout of the project"
    )
