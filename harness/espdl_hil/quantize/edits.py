"""What to write in place of an operator that ESP-DL lacks, or that torch cannot export."""

from __future__ import annotations

_ALIKE = {  # what one edit is for
    **dict.fromkeys(("Ceil", "Floor"), "Round"),
    **dict.fromkeys(("Atan", "Cos", "Tan"), "Sin"),
}
EDITS = {
    "ArgMax": "return the scores, and take argmax of what the chip gives",
    "Cast": "compute with float32 throughout; in place of nn.Embedding, nn.Linear(bias=False) of "
    "one-hot vectors",
    "CumSum": "take a window of fixed length, such as F.avg_pool1d(F.pad(x, (n - 1, 0)), n, 1), or "
    "a recurrent layer",
    "Div": "take more frames a chunk, more channels, or 16 bits for a quotient of single elements",
    "Einsum": "write it as nn.Linear, or as a convolution whose kernel_size is 1, with groups=n "
    "where each of n heads has a matrix of its own",
    "Erf": 'use nn.GELU(approximate="tanh"): its operators are there',
    "Expand": "leave expand out where arithmetic follows: it broadcasts",
    "MatMul": "write a product a @ b of two computed tensors as "
    "(a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)",
    "RNN": "use nn.GRU, with its state as an input and an output of forward",
    "Resize": "upsample with nn.ConvTranspose1d(.., kernel_size=n, stride=n), or at 16 bits with "
    "x.repeat_interleave(n, 2)",
    "Round": "leave it out: quantization rounds",
    "Sign": "use torch.tanh(9 * x), which is steep around 0",
    "Sin": "use an activation that ESP-DL has, such as torch.tanh or nn.SiLU",
    "TopK": "take the largest with x.amax(1, keepdim=True), of the channels of each frame",
    "Where": "choose by arithmetic: F.relu(x - t) is what lies above t, torch.clamp(x, low, high) "
    "what lies between, and torch.clamp(99 * (x - t), 0, 1) a mask; a constant mask multiplies",
    # of what torch cannot export
    "fft": "use a convolution without bias whose weights are the cosines and sines: n_fft is its "
    "kernel_size, hop_length its stride; and re * re + im * im in place of abs()",
    "complex": "carry real and imaginary part as channels: torch.cat([re, im], 1)",
    "projections": "leave proj_size out, and put an nn.Linear behind the nn.LSTM",
    "script": "leave torch.jit.script out: the module is traced as it is",
    "threshold": "use F.relu(x - t), or torch.clamp: what jumps is computed at no width",
}


def edit_for(operator: str) -> str | None:
    """What to write in place of an operator, by its ONNX name; None where nothing is known."""
    return EDITS.get(_ALIKE.get(operator, operator))


def edit_of_words(reason: str) -> str | None:
    """What to write, by the words in which torch says what it cannot export."""
    words = {"stft": EDITS["fft"], **EDITS}
    found = (edit for word, edit in words.items() if word.islower() and word in reason.lower())
    return next(found, None)
