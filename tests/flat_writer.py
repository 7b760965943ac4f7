"""Model files built by hand."""

import struct

import flatbuffers
import numpy as np

DTYPE_CODES = {"float32": 1, "uint8": 2, "int8": 3, "int16": 5, "int32": 6, "int64": 7, "bool": 9}


class FlatWriter:
    """Writes tables of the `.espdl` schema: fields are (slot, kind, value)."""

    def __init__(self):
        self.builder = flatbuffers.Builder(256)

    def table(self, *fields):
        builder = self.builder
        ready = [(slot, kind, self._prepare(kind, value)) for slot, kind, value in fields]
        builder.StartObject(16)
        for slot, kind, value in ready:
            if kind == "i32":
                builder.PrependInt32Slot(slot, value, None)
            elif kind == "i64":
                builder.PrependInt64Slot(slot, value, None)
            elif kind == "u8":
                builder.PrependUint8Slot(slot, value, None)
            elif kind in ("f", "q"):  # one-number structs are stored in place
                builder.Prep(8 if kind == "q" else 4, 0)
                (builder.PrependInt64 if kind == "q" else builder.PrependFloat32)(value)
                builder.PrependStructSlot(slot, builder.Offset(), 0)
            else:
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return builder.EndObject()

    def _prepare(self, kind, value):
        builder = self.builder
        if kind == "text":
            return builder.CreateString(value)
        if kind == "bytes":
            return builder.CreateByteVector(value)
        if kind == "array":
            return builder.CreateNumpyVector(np.asarray(value))
        if kind == "blocks":
            padded = value + bytes(-len(value) % 16)
            builder.StartVector(16, len(padded) // 16, 16)
            for byte in reversed(padded):
                builder.PrependUint8(byte)
            return builder.EndVector()
        if kind in ("tables", "texts"):
            items = [builder.CreateString(v) for v in value] if kind == "texts" else value
            builder.StartVector(4, len(items), 4)
            for item in reversed(items):
                builder.PrependUOffsetTRelative(item)
            return builder.EndVector()
        return value

    def tensor(self, name, array, *, exponents=(0,), raw=True, **extra):
        array = np.asarray(array)
        fields = [
            (0, "array", np.array(array.shape, "<i8")),
            (1, "i32", extra.get("code", DTYPE_CODES[array.dtype.name])),
            (6, "text", name),
            (13, "array", np.array(exponents, "<i8")),
        ]
        if raw:
            fields.append((8, "blocks", array.tobytes()))
        return self.table(*fields, *extra.get("fields", ()))

    def value_info(self, name, dtype, shape, exponents=(0,)):
        dims = []
        for dim in shape:
            known = () if dim is None else ((0, "u8", 1), (1, "i64", dim))
            dims.append(self.table((0, "table", self.table(*known))))
        tensor = self.table(
            (0, "i32", DTYPE_CODES[dtype]), (1, "table", self.table((0, "tables", dims)))
        )
        return self.table(
            (0, "text", name),
            (1, "table", self.table((0, "u8", 1), (1, "table", tensor))),
            (3, "array", np.array(exponents, "<i8")),
        )

    def node(self, name, op_type, inputs, outputs, attributes=()):
        return self.table(
            (0, "texts", inputs),
            (1, "texts", outputs),
            (2, "text", name),
            (3, "text", op_type),
            (5, "tables", list(attributes)),
        )

    def graph(self, **vectors):
        slots = {
            "nodes": 0,
            "constants": 2,
            "inputs": 4,
            "outputs": 5,
            "value_info": 6,
            "test_inputs": 8,
            "test_outputs": 9,
        }
        fields = [(slots[name], "tables", items) for name, items in vectors.items()]
        return self.table((1, "text", "built"), *fields)

    def finish(self, *fields, magic=b"EDL2"):
        """The file whose model has *fields*."""
        self.builder.Finish(self.table(*fields))
        payload = bytes(self.builder.Output())
        pad = b"" if magic == b"EDL1" else bytes(4)
        return magic + struct.pack("<II", 0, len(payload)) + pad + payload
