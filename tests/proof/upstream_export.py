"""Exports one zoo model as ESP-DL's streaming tutorial does: quantized twice, ``auto_streaming``.

Run in a process of its own: ``upstream_export.py MODEL.py TARGET CHUNK FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from esp_ppq.api import espdl_quantize_torch, insert_streaming_cache_on_var
from torch.utils.data import DataLoader, TensorDataset

from espdl_hil.model import importing_from, load_model

HEAD_FRAMES = 3  # of tcn: the frames that its head reads
torch.set_num_threads(1)  # as many as make the file, and no fight for cores


def export(source: Path, target: str, chunk: int, folder: Path) -> None:
    """Leave ``model.espdl`` and ``streaming_model.espdl`` in *folder*."""
    torch.manual_seed(0)
    with importing_from(source.parent):
        declared = load_model(source)
        module = declared.build().eval()
    shape = list(declared.input_shape)
    loader = DataLoader(TensorDataset(torch.randn(*shape)), batch_size=1, shuffle=False)
    common = {
        "model": module,
        "calib_dataloader": loader,
        "calib_steps": 32,
        "input_shape": shape,
        "inputs": None,
        "target": target,
        "num_of_bits": 8,
        "collate_fn": lambda batch: batch[0],
        "device": "cpu",
        "error_report": False,
        "verbose": 0,
    }
    espdl_quantize_torch(
        espdl_export_file=str(folder / "model.espdl"), export_test_values=True, **common
    )
    table = []
    if declared.name == "tcn":  # what the tutorial's script names by hand, by this model's names
        table = [
            insert_streaming_cache_on_var("/reduce/Conv_output_0", HEAD_FRAMES - 1),
            insert_streaming_cache_on_var("PPQ_Variable_0", 1, "/Slice"),
        ]
    streamed = [*shape]
    streamed[declared.frame_axis] = chunk
    espdl_quantize_torch(
        espdl_export_file=str(folder / "streaming_model.espdl"),
        export_test_values=False,
        auto_streaming=True,
        streaming_input_shape=streamed,
        streaming_table=table,
        **common,
    )


if __name__ == "__main__":
    export(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
