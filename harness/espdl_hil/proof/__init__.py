"""One case end to end: expected, observed, judged, explained."""
