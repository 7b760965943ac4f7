"""The pytest plugin: options, fixtures and collection."""
