"""Runs one campaign: ``python run_campaign.py KIND SEED COUNT``; prints its figures as JSON."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

if __name__ == "__main__":
    room, cases = sys.argv[1].split(":")
    attacks = import_module(room)
    attacks.warm_up()
    chosen = getattr(attacks, cases)(int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(import_module("measured").campaign(chosen)))
