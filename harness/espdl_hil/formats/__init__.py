"""Standards of others, once for all rooms: telnet, RFC 2217, partition table, ESP image, npz."""
