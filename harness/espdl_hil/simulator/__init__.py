"""The simulated devkit: a port, a flash, a boot and the firmware core, without a chip."""

from espdl_hil.simulator.devkit import Devkit
from espdl_hil.simulator.image import build_app

__all__ = ["Devkit", "build_app"]
