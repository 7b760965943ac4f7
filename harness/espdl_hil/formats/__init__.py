"""Standards of others, once for all rooms: telnet and RFC 2217, partition table, ESP image."""
