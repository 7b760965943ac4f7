"""``python -m espdl_hil``: the same as the command ``espdl-hil``."""

import sys

from espdl_hil.cli import main

if __name__ == "__main__":
    sys.exit(main())
