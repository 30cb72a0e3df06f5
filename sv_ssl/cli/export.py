"""sv-export: a model folder as one file for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError
from sv_ssl.core.guard import check_outputs

ABOUT = """\
Write a model folder as one file that takes audio and gives embeddings, without sv_ssl: ONNX (onnxruntime, C++, C#,
JavaScript, phones) or TorchScript (libtorch). The features are inside, lengths are free.
"""
MORE = """\
Input `wave` is (1, samples) float32 between -1 and 1 at the model's sample rate, output `embedding` (1, dim). Embed one
utterance at a time: padding changes embeddings. The file is compared with PyTorch on random audio of several lengths
and not written if embeddings differ by more than 1e-4.

examples
  sv-export MODEL --onnx model.onnx
  sv-export MODEL --torchscript model.pt
  sv-extract model.onnx voxceleb1/wav --out embeddings.npz
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _export(_parser().parse_args(argv)), "sv-export")


def _parser() -> Parser:
    parser = Parser(prog="sv-export", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, as training writes it")
    add("--onnx", metavar="OUT.onnx", help="write ONNX; needs pip install 'sv_ssl[onnx]'")
    add("--torchscript", metavar="OUT.pt", help="write TorchScript, by tracing")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    if not (arguments.onnx or arguments.torchscript):
        raise InputError("nothing to write: pass --onnx OUT.onnx or --torchscript OUT.pt")
    written = [("--onnx", arguments.onnx), ("--torchscript", arguments.torchscript)]
    check_outputs([("MODEL", arguments.model)], written)
    if arguments.model.endswith(".onnx"):
        raise InputError(
            f"{arguments.model} is a file that sv-export has written: name the model folder it was made of"
        )
    from sv_ssl.models import folder, onnx

    embedder = folder.load(arguments.model)
    for path, write in ((arguments.onnx, onnx.to_onnx), (arguments.torchscript, onnx.to_torchscript)):
        if path:
            print(f"wrote {path}: embeddings differ from PyTorch's by at most {write(embedder, path):.1g}")
    print(f"input: (1, samples) float32 at {embedder.sample_rate} Hz; output: (1, {embedder.dim})")
    if arguments.onnx:
        print(f"next: sv-extract {arguments.onnx} AUDIO_FOLDER --out embeddings.npz, or onnxruntime in any language")
    else:
        print(f'next: torch.jit.load("{arguments.torchscript}")(wave), in Python or with libtorch')


if __name__ == "__main__":
    raise SystemExit(main())
