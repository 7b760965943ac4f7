"""Runs pytest as a user does: in a process of its own, in a folder of its own."""

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from warm_pytest import run_pytest

REPOSITORY = Path(__file__).parents[2]

MODEL = """
from espdl_hil import StreamingModel

def build():
    from torch import nn
    return nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 4, 3))

MODEL = StreamingModel(
    name="mine", build=build, input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,)
)
"""
TEST = """
def test_streams(hil):
    hil.verify()
"""


@dataclass
class Project:
    """A user's folder."""

    folder: Path
    store: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return path

    def pytest(
        self, *arguments: str, timeout_s: float = 300, fresh: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run pytest here; *fresh* if it matters what is imported when it starts."""
        environment = {k: v for k, v in os.environ.items() if k != "IDF_PATH"} | self.environment
        if not fresh:
            return run_pytest(self.options(*arguments), self.folder, environment, timeout_s)
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pytest", *self.options(*arguments)]

    def options(self, *arguments: str) -> list[str]:
        # These take time in each of some hundred runs: one to import, one to collect garbage.
        options = [
            f"-pno:{n}" for n in ("cacheprovider", "hypothesispytest", "unraisableexception")
        ]
        options.append(f"--hil-store={self.store}")
        return [*options, *arguments]


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """One artifact store for all tests and processes, so that each model is quantized once."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "store"


@pytest.fixture
def project(tmp_path, store):
    """A folder with one model and a three-line test."""
    made = Project(tmp_path, store)
    made.write("mine.py", MODEL)
    made.write("test_mine.py", TEST)
    return made
