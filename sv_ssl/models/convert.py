"""Encoders of other toolkits, as model folders: tensors alone, every one accounted for, or a refusal that says why.

speechbrain   ECAPA-TDNN: `embedding_model.ckpt`, with SpeechBrain's own Fbank
wespeaker     ResNet-34, with Kaldi's filterbank; its ECAPA-TDNN is not ours, and what differs is said
3dspeaker     ResNet-34 and ECAPA-TDNN, with Kaldi's filterbank
sslsv         Fast ResNet-34 and ECAPA-TDNN of a `model_*.pt`, with its mel spectrogram and window
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.models.checkpoint_file import tensors
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import KaldiFbank, SpeechBrainFbank, SslsvMel
from sv_ssl.models.resnet import FastResNet34, WeSpeakerResNet34
from sv_ssl.models.weights import fit

COUNTER = "num_batches_tracked"  # of a BatchNorm: no weight, and absent from averaged checkpoints
Tensors = Mapping[str, Tensor]
UNKNOWN = "a checkpoint does not hold its settings, so compare them with the recipe's file"
FRONT_ENDS: dict[str, tuple[Callable[[int], Any], str]] = {
    "speechbrain": (
        SpeechBrainFbank,
        f"SpeechBrain's Fbank with its defaults and the sentence's mean removed, as in its VoxCeleb recipes; {UNKNOWN}",
    ),
    "wespeaker": (
        partial(KaldiFbank, window="hamming", scale=32768.0),
        "Kaldi's filterbank of 16-bit samples without "
        f"dither, Hamming window, the sentence's mean removed, as in its recipes; {UNKNOWN}",
    ),
    "3dspeaker": (
        KaldiFbank,
        "Kaldi's filterbank of samples between -1 and 1 without dither, Povey window, the "
        f"sentence's mean removed, as in its recipes; {UNKNOWN}",
    ),
    "sslsv": (
        SslsvMel,
        "torchaudio's mel spectrogram with the window and the bands that the checkpoint holds, "
        "log(x + 1e-6), each band's mean and variance normalised over the sentence",
    ),
}
LAYERS = {"1": 0, "2": 3, "3": 7, "4": 13}  # the first block of each of a ResNet-34's four stages


class Imported(NamedTuple):
    """An embedder with the weights of another toolkit, and the account of them."""

    embedder: Embedder
    matched: list[tuple[str, str, tuple[int, ...]]]  # theirs, ours, shape
    left_out: dict[str, int]  # parts of the checkpoint that are no part of the encoder: number of tensors
    front_end: str  # what the weights were trained with, and how far that is known

    def report(self) -> str:
        """Return a line a tensor, and what was left out."""
        width = max(len(theirs) for theirs, _, _ in self.matched)
        lines = [f"{theirs:{width}}  ->  {ours}  {shape}" for theirs, ours, shape in self.matched]
        lines += [
            f"left out: {part} ({count} tensors), no part of the encoder" for part, count in self.left_out.items()
        ]
        return "\n".join([*lines, f"front end: {self.front_end}"])


def read(path: str | os.PathLike, kind: str) -> Imported:
    """Read a checkpoint of another toolkit into an embedder in eval mode; every tensor must find its place."""
    if kind not in FRONT_ENDS:
        raise InputError(f"no kind {kind!r} of checkpoint is known: choose one of {', '.join(FRONT_ENDS)}")
    theirs = tensors(path)
    make, front_end = FRONT_ENDS[kind]
    if kind == "sslsv":
        inner, left_out = _of_encoder(theirs, path)
        features = _sslsv_front_end(inner, path)
        encoder, names = _sslsv(inner, features.n_mels, path)
    else:
        inner, left_out = _without_head(theirs)
        is_resnet = kind == "wespeaker" or (kind == "3dspeaker" and "seg_1.weight" in inner)
        floor = 1e-7 if kind == "wespeaker" else 1e-8
        encoder, names = _resnet(inner, floor, path) if is_resnet else _ecapa(inner, path)
        features = _front_end(make, encoder.config["n_mels"], path)
    matched = _fill(encoder, inner, names, path)
    return Imported(Embedder(features, encoder).eval(), matched, left_out, front_end)


def _of_encoder(theirs: Tensors, path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the tensors below `encoder.`, and the number of those below each other name."""
    inner = {name.removeprefix("encoder."): value for name, value in theirs.items() if name.startswith("encoder.")}
    others = Counter(name.split(".")[0] for name in theirs if not name.startswith("encoder."))
    if not inner:
        raise InputError(
            f"{path} has no `encoder.`: wanted an sslsv checkpoint of one encoder; it has {', '.join(others)}"
        )
    return inner, dict(others)


def _without_head(theirs: Tensors) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the tensors without a classifier's head, known by its name, and the number of the head's."""
    heads = ("projection.", "classifier.")
    left = Counter(name.split(".")[0] for name in theirs if name.startswith(heads))
    return {name: value for name, value in theirs.items() if not name.startswith(heads)}, dict(left)


def _front_end(make: Callable[[int], Any], n_mels: int, path: str | os.PathLike) -> Any:
    try:
        return make(n_mels)
    except InputError as error:
        raise InputError(f"{path}: the features that its shapes tell of cannot be made: {error}") from error


def _shape(theirs: Tensors, name: str, n_dims: int, path: str | os.PathLike) -> tuple[int, ...]:
    """Return the shape of a tensor that tells the sizes of the others."""
    if name not in theirs:
        raise InputError(
            f"{path} has no tensor {name}, by which this layout is known; it has {len(theirs)}, such as "
            f"{', '.join(list(theirs)[:3])}"
        )
    shape = tuple(theirs[name].shape)
    if len(shape) != n_dims or 0 in shape:
        raise InputError(f"{path}: {name} is {shape}: wanted {n_dims} dimensions, none of them 0")
    return shape


def _size(sizes: Mapping[Any, Any], wanted: Any, path: str | os.PathLike) -> Any:
    size = next((size for size, ours in sizes.items() if ours == wanted), None)
    if size is None:
        raise InputError(f"{path}: an encoder of the size {wanted} is not among ours: {sizes}")
    return size


def _ecapa(theirs: Tensors, path: str | os.PathLike) -> tuple[Any, dict[str, str]]:
    """Build SpeechBrain's ECAPA-TDNN, which is 3D-Speaker's too, and by the same names sslsv's."""
    width, n_mels, _ = _shape(theirs, "blocks.0.conv.conv.weight", 3, path)
    sizes = {
        "width": width,
        "last": _shape(theirs, "mfa.conv.conv.weight", 3, path)[0],
        "bottleneck": _shape(theirs, "asp.tdnn.conv.conv.weight", 3, path)[0],
    }
    encoder = ECAPA(n_mels, _size(ECAPA.SIZES, sizes, path), _shape(theirs, "fc.conv.weight", 3, path)[0])
    return encoder, {name: f"tdnn.{name}" for name in theirs}


def _resnet(theirs: Tensors, floor: float, path: str | os.PathLike) -> tuple[Any, dict[str, str]]:
    """Build WeSpeaker's ResNet-34, which is 3D-Speaker's too."""
    if "layer2.se_res2block.0.conv.weight" in theirs:
        raise InputError(
            f"{path} is a WeSpeaker ECAPA-TDNN, which is not ours: its convolutions pad with zeros, ours "
            "reflect; it has no BatchNorm behind the aggregation (conv) and neither ReLU nor BatchNorm in "
            "the attention (pool.linear1); its Res2 blocks leave the last part as it is, ours the first"
        )
    for sign, what in (
        ("seg_2.weight", "it has a second layer for embeddings (seg_2)"),
        ("layer1.0.conv3.weight", "its blocks are bottlenecks of three convolutions, ours have two"),
        ("pool.linear1.weight", "its pooling weighs frames by attention, ours does not"),
        ("layer3.6.conv1.weight", "it has more blocks than ResNet-34"),
    ):
        if sign in theirs:
            raise InputError(f"{path} is a ResNet that is not ours: {what}")
    width, (dim, pooled) = _shape(theirs, "conv1.weight", 4, path)[0], _shape(theirs, "seg_1.weight", 2, path)
    widths = tuple(width << stage for stage in range(4))
    n_mels, size = pooled // (2 * widths[-1]) * 8, _size(WeSpeakerResNet34.SIZES, widths, path)
    encoder = WeSpeakerResNet34(n_mels, size, dim, floor)
    return encoder, {name: _resnet_name(name) for name in theirs}


def _resnet_name(name: str) -> str:
    """Translate the name of a tensor of WeSpeaker's ResNet into ours.

    >>> _resnet_name("layer2.0.shortcut.1.bias"), _resnet_name("bn1.weight")
    ('blocks.3.shortcut.1.bias', 'stem.1.weight')
    """
    name = re.sub(r"^layer([1-4])\.(\d+)", lambda match: f"blocks.{LAYERS[match[1]] + int(match[2])}", name)
    return re.sub(r"^seg_1\.", "project.", re.sub(r"^bn1\.", "stem.1.", re.sub(r"^conv1\.", "stem.0.", name)))


def _sslsv(theirs: Tensors, n_mels: int, path: str | os.PathLike) -> tuple[Any, dict[str, str]]:
    """Build the ECAPA-TDNN or Fast ResNet-34 of an sslsv checkpoint."""
    if "blocks.0.conv.conv.weight" in theirs:
        encoder, names = _ecapa(theirs, path)
        return encoder, {name: re.sub(r"(norm|asp_bn)\.(\w+)$", r"\1.norm.\2", ours) for name, ours in names.items()}
    width, dim = _shape(theirs, "conv.weight", 4, path)[0], _shape(theirs, "fc.weight", 2, path)[0]
    size = _size(FastResNet34.SIZES, tuple(width << stage for stage in range(4)), path)
    return FastResNet34(n_mels, size, dim), {name: _fast_name(name) for name in theirs}


def _sslsv_front_end(theirs: dict[str, Tensor], path: str | os.PathLike) -> SslsvMel:
    """Take the constants of the front end out of the tensors, and make the front end that has just these."""
    window = theirs.pop("features_extractor.0.spectrogram.window", None)
    bands = theirs.pop("features_extractor.0.mel_scale.fb", None)
    if window is None or bands is None:
        raise InputError(f"{path} holds no mel spectrogram (features_extractor): its encoder takes other features")
    for name in ("hamming", "hann") if bands.ndim == 2 else ():
        ours = _front_end(partial(SslsvMel, window=name), bands.shape[1], path)
        pairs = (window, ours.mel.spectrogram.window), (bands, ours.mel.mel_scale.fb)
        if all(
            a.shape == b.shape and torch.allclose(fit(a, b, f"{path}: its front end"), b, atol=1e-5) for a, b in pairs
        ):
            return ours
    raise InputError(
        f"{path}: its front end cannot be made here: a window of shape {tuple(window.shape)} and bands of shape "
        f"{tuple(bands.shape)} that are not those of 16 kHz, 512 points, 25 ms Hamming or Hann"
    )


def _fast_name(name: str) -> str:
    """Translate the name of a tensor of sslsv's Fast ResNet-34 into ours.

    >>> _fast_name("block2.0.downsample.1.bias"), _fast_name("pooling.attention")
    ('blocks.3.shortcut.1.bias', 'pooling.question')
    """
    name = re.sub(r"^block([1-4])\.(\d+)", lambda match: f"blocks.{LAYERS[match[1]] + int(match[2])}", name)
    for theirs, ours in (
        (r"^conv\.", "stem.0."),
        (r"^bn\.", "stem.1."),
        (r"\.se\.fc\.", ".gate.gate."),
        (r"\.downsample\.", ".shortcut."),
        (r"^pooling\.sap_linear\.", "pooling.hidden."),
        (r"^pooling\.attention$", "pooling.question"),
        (r"^fc\.", "project."),
    ):
        name = re.sub(theirs, ours, name)
    return name


def _fill(
    encoder: nn.Module,
    theirs: Tensors,
    names: Mapping[str, str],
    path: str | os.PathLike,
) -> list[tuple[str, str, tuple[int, ...]]]:
    """Copy their tensors into our encoder; none may be missing, left over, of another shape or not finite."""
    wanted = encoder.state_dict()
    placed = {names[name]: (name, value) for name, value in theirs.items()}
    missing = [name for name in wanted if name not in placed and not name.endswith(COUNTER)]
    extra = [name for ours, (name, _) in placed.items() if ours not in wanted]
    if missing or extra:
        raise InputError(
            f"{path} is not our {type(encoder).__name__}: {len(missing)} of our tensors have no "
            f"counterpart ({', '.join(missing[:3]) or '-'}), {len(extra)} of theirs have no place "
            f"({', '.join(extra[:3]) or '-'})"
        )
    for ours, (name, value) in placed.items():
        if value.shape != wanted[ours].shape:
            raise InputError(f"{path}: {name} is {tuple(value.shape)}, ours ({ours}) is {tuple(wanted[ours].shape)}")
        if not name.endswith(COUNTER):  # in an average of checkpoints it is no whole number
            placed[ours] = (name, fit(value, wanted[ours], f"{path}: {name}"))
    encoder.load_state_dict({**wanted, **{ours: value for ours, (_, value) in placed.items()}})
    return [(name, ours, tuple(value.shape)) for ours, (name, value) in placed.items()]
