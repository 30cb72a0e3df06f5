"""sv-import: an encoder of another toolkit as a model folder; or a model folder of an earlier version written anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError
from sv_ssl.core.guard import check_outputs

ABOUT = """\
Make a model folder of another toolkit's checkpoint. Every tensor must find its place in an encoder of ours, of the same
shape; if one is missing or left over nothing is written, and what differs is said. No code in the file is run.

A model folder of an earlier version of sv_ssl is written anew, with the same weights: sv-extract and the others read
it as it is, but SpeechBrain looks for modules that have moved.
"""
MORE = """\
what is read
  speechbrain   ECAPA-TDNN (embedding_model.ckpt), with SpeechBrain's own Fbank: the same embeddings
  wespeaker     ResNet-34 (avg_model.pt), with Kaldi's filterbank; not its ECAPA-TDNN, which pads otherwise
  3dspeaker     ResNet-34 and ECAPA-TDNN, with Kaldi's filterbank
  sslsv         Fast ResNet-34 and ECAPA-TDNN (model_*.pt), with the front end that the checkpoint holds
  (no --kind)   a model folder of ours: config.json and model.safetensors

examples
  sv-import embedding_model.ckpt --kind speechbrain --out ecapa
  sv-import model_latest.pt --kind sslsv --out simclr
  sv-import exp/old/model --out model
  sv-extract ecapa voxceleb1/wav --out embeddings.npz
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _import(_parser().parse_args(argv)), "sv-import")


def _parser() -> Parser:
    parser = Parser(prog="sv-import", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="file of tensors (torch.save or safetensors), or a model folder")
    add("--kind", choices=("speechbrain", "wespeaker", "3dspeaker", "sslsv"), help="whose checkpoint it is")
    add("--out", metavar="FOLDER", required=True, help="model folder to write; it must not be there")
    return parser


def _import(arguments: argparse.Namespace) -> None:
    if Path(arguments.out).exists():
        raise InputError(f"{arguments.out} is there already: name a new folder")
    check_outputs([("CHECKPOINT", arguments.checkpoint)], [("--out", Path(arguments.out))])
    ours = (Path(arguments.checkpoint) / "config.json").is_file()
    if ours and arguments.kind:
        raise InputError(f"{arguments.checkpoint} is a model folder of sv_ssl, which has no --kind: leave it out")
    if not ours and not arguments.kind:
        raise InputError(
            f"{arguments.checkpoint} is not a model folder of sv_ssl: pass --kind, whose checkpoint it is (--help)"
        )
    if ours:
        _renew(arguments)
    else:
        _convert(arguments)
    print(f"next: sv-extract {arguments.out} AUDIO_FOLDER --out embeddings.npz")


def _renew(arguments: argparse.Namespace) -> None:
    from sv_ssl.models import folder

    embedder = folder.renew(arguments.checkpoint, arguments.out)
    print(
        f"wrote {arguments.out}: the weights of {arguments.checkpoint}, {embedder.dim} dimensions\n"
        f'SpeechBrain loads it too: EncoderClassifier.from_hparams(source="{arguments.out}")'
    )


def _convert(arguments: argparse.Namespace) -> None:
    from sv_ssl.models import convert, folder

    imported = convert.read(arguments.checkpoint, arguments.kind)
    print(imported.report())
    training = {
        "name": f"{Path(arguments.checkpoint).name} of {arguments.kind}",
        "imported_from": arguments.kind,
        "front_end": imported.front_end,
    }
    folder.save(arguments.out, imported.embedder, training)
    print(f"wrote {arguments.out}: {len(imported.matched)} tensors, {imported.embedder.dim} dimensions")


if __name__ == "__main__":
    raise SystemExit(main())
