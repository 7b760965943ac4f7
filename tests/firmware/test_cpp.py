"""Builds the portable firmware core with sanitizers and runs its C++ tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOST = ROOT / "firmware" / "host"


def tool(name: str) -> str:
    """Return the path of a build tool, or fail with what to install."""
    beside_python = str(Path(sys.executable).parent)
    path = shutil.which(name) or shutil.which(name, path=beside_python)
    if path is None:
        pytest.fail(
            f"{name} was not found on PATH: the firmware core's tests need cmake, ctest, a C++17 "
            "compiler (Debian: apt install cmake g++) and clang-format (pip install -e .[dev])",
            pytrace=False,
        )
    return path


def run(*command: str) -> str:
    """Run a command; its whole output is the failure text."""
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    if result.returncode:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}", pytrace=False)
    return result.stdout


@pytest.fixture(scope="module")
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the build folder, kept between runs where pytest keeps a cache."""
    cache = request.config.cache
    folder = cache.mkdir("hil-firmware-host") if cache else tmp_path_factory.mktemp("firmware-host")
    tool("c++")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    run(tool("cmake"), "-S", str(HOST), "-B", str(folder), *generator)
    run(tool("cmake"), "--build", str(folder), "--parallel", str(os.cpu_count() or 1))
    return folder


def test_cpp_tests_pass_under_sanitizers(build: Path) -> None:
    output = run(tool("ctest"), "--test-dir", str(build), "--output-on-failure")
    assert "100% tests passed" in output
    passed = re.findall(r"Test +#\d+: (\w+) \.+ +Passed", output)
    assert passed == ["unit", "checks_can_fail", "no_test_is_no_success", "fuzz"]


def test_every_vector_is_run_in_cpp(build: Path) -> None:
    output = run(str(build / "hil_tests"), "Vector")
    generated = (build / "vectors.cpp").read_text()
    assert output.count("ok      MessageVector") == generated.count("TEST(MessageVector") > 40
    assert output.count("ok      StreamVector") == generated.count("TEST(StreamVector") > 10


def test_sanitizers_are_on(build: Path) -> None:
    """The twin of all that: memory errors are only noticed when the instrumentation is there."""
    binary = (build / "hil_tests").read_bytes()
    assert b"__asan_report_load" in binary
    assert b"__ubsan_handle" in binary


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(pytest.fail.Exception, match=r"^cmake was not found on PATH: .*apt install"):
        tool("cmake")


@pytest.mark.slow  # each simulated devkit is built from that list, in several calls
def test_library_builds_from_the_plain_source_list(tmp_path: Path) -> None:
    """What ``sources.txt`` promises: one plain compiler call makes the shared library."""
    entries = [
        line
        for line in (HOST / "sources.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    folder = HOST.parent
    arguments = [
        f"-I{folder / entry[2:]}" if entry.startswith("-I") else str(folder / entry)
        for entry in entries
    ]
    library = tmp_path / "libhil.so"
    run(tool("c++"), "-std=c++17", "-shared", "-fPIC", *arguments, "-o", str(library))
    assert library.stat().st_size > 0


CROSS = "arm-none-eabi-g++"  # its C library has the types of Espressif's
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-fno-exceptions")


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"{CROSS} is not installed")
def test_portable_sources_compile_where_uint32_t_is_long(tmp_path: Path) -> None:
    """On the chips ``uint32_t`` is ``unsigned long``, and ``size_t`` another type."""
    command = (CROSS, "-std=c++17", "-fsyntax-only", "-fno-rtti", *WARNINGS)
    components = ROOT / "firmware" / "components"
    folders = [components / name for name in ("espdl_stream", "wire", "runner")]
    sources = [
        str(path)
        for folder in folders
        for path in sorted(folder.glob("src/*.cpp"))
        if path.name != "dl_engine.cpp"  # ESP-DL's
    ]
    assert len(sources) > 10
    run(*command, *(f"-I{folder / 'include'}" for folder in folders), *sources)

    twin = tmp_path / "twin.cpp"
    twin.write_text(
        "#include <algorithm>\n#include <cstdint>\n"
        "std::size_t Least(std::size_t a, uint32_t b) { return std::min(a, b - a); }\n"
    )
    run("c++", "-std=c++17", "-fsyntax-only", *WARNINGS, str(twin))
    with pytest.raises(pytest.fail.Exception, match="no matching function for call to"):
        run(*command, str(twin))


def test_sources_are_formatted() -> None:
    formatter = tool("clang-format")
    sources = [
        str(path)
        for folder in ("components", "host", "main")
        for path in sorted((ROOT / "firmware" / folder).rglob("*"))
        if path.suffix in {".h", ".cpp"}
    ]
    assert len(sources) > 20
    run(formatter, "--dry-run", "-Werror", *sources)


# Headers of ESP-IDF that only work where a component is built that nothing else asks for.
NEEDED = {"_vfs.h": "vfs", "driver/uart.h": "esp_driver_uart", "esp_timer.h": "esp_timer"}


def missing_components(folder: Path) -> set[str]:
    """Return components that a component uses and does not name in its CMakeLists.txt."""
    named = set(
        (folder / "CMakeLists.txt").read_text().partition("REQUIRES")[2].split(")")[0].split()
    )
    used = re.findall(
        r'#include "([^"]+)"', "".join(p.read_text() for p in folder.glob("src/*.cpp"))
    )
    return {name for end, name in NEEDED.items() if any(u.endswith(end) for u in used)} - named


def test_components_name_the_components_that_they_use(tmp_path: Path) -> None:
    """With COMPONENTS=main, which leaves out what nobody names, the UART port must still build."""
    components = ROOT / "firmware" / "components"
    for name in ("hil_serve", "espdl_stream"):
        assert missing_components(components / name) == set()
    copy = Path(shutil.copytree(components / "hil_serve", tmp_path / "copy"))
    listing = (copy / "CMakeLists.txt").read_text()
    (copy / "CMakeLists.txt").write_text(re.sub(r"\s+vfs\)", ")", listing))
    assert missing_components(copy) == {"vfs"}
