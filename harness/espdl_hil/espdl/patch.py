"""Change single weights of a file in place, for fault injection. Keeps every other byte."""

from __future__ import annotations

from espdl_hil.errors import ConfigError
from espdl_hil.espdl.reader import load_graph


def patch_initializer(data: bytes, name: str, flat_index: int, xor: int) -> bytes:
    """Flip bits of one stored element.

    Args:
        data: A plain EDL file.
        name: The constant.
        flat_index: Element in stored (packed) order.
        xor: Bits to flip, as an unsigned number of the element's width.

    Returns:
        The file with the element changed; same length.

    Raises:
        ArtifactError: *data* is not a sound EDL file.
        ConfigError: The file is encrypted, has no such constant stored as raw bytes, or the
            element or the bits are out of range.
    """
    graph = load_graph(data)
    tensor = graph.initializers.get(name)
    if tensor is None or tensor.span is None or graph.header.encrypted:
        raise ConfigError(f"no raw bytes of a constant {name!r} to patch")
    width = tensor.info.dtype.itemsize
    if not 0 <= flat_index < tensor.info.size or not 0 <= xor < 256**width:
        raise ConfigError(
            f"element {flat_index} or bits {xor:#x} are out of range: {name!r} has "
            f"{tensor.info.size} elements of {width} bytes"
        )
    start = tensor.span.offset + flat_index * width
    patched = bytearray(data)
    element = int.from_bytes(patched[start : start + width], "little") ^ xor
    patched[start : start + width] = element.to_bytes(width, "little")
    return bytes(patched)
