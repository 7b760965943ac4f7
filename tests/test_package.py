"""What importing the package says where it cannot work."""

from __future__ import annotations

import subprocess
import sys

import pytest

MESSAGE = (
    "espdl-hil needs Python 3.11 or 3.12, this is {}: esp-ppq, which quantizes, supports no newer "
    "one; use an environment made with python3.12\n"
)
# The version changes when our package is looked for: others must not see it.
FAKE = """
import sys
import pytest
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "espdl_hil":
            sys.version_info = {version}
sys.meta_path.insert(0, Finder)
{use}
"""
USES = {
    "import": "import espdl_hil",
    "a model file": "from espdl_hil import StreamingModel",
    "pytest": "pytest.main(['-p', 'espdl_hil.plugin'])",
}


def run(version: tuple[int, int], use: str) -> subprocess.CompletedProcess[str]:
    code = FAKE.format(version=(*version, 0, "final", 0), use=use)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("version", [(3, 13), (3, 14)])
def test_a_python_that_the_exporter_does_not_support_is_one_message(
    version: tuple[int, int], use: str
) -> None:
    found = run(version, USES[use])
    assert found.returncode == 4
    assert found.stderr == MESSAGE.format(".".join(map(str, version)))
    assert found.stdout == ""


@pytest.mark.parametrize("version", [(3, 11), (3, 12)])
def test_a_python_that_it_supports_is_not_refused(version: tuple[int, int]) -> None:
    found = run(version, USES["import"])
    assert (found.returncode, found.stderr) == (0, "")
