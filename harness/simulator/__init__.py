"""The simulated devkit: a port, a flash, a boot and the firmware core, without a chip."""

from harness.simulator.devkit import Devkit
from harness.simulator.image import build_app

__all__ = ["Devkit", "build_app"]
