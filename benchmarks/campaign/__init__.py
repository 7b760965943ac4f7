"""The diagnosis campaign: what to break, on which models, on which device."""
