"""One case end to end: expected, observed, compared, explained, noted. No pytest."""
