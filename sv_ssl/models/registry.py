"""The names by which config.json of a model folder calls front ends and encoders.

A name is frozen: folders hold it for ever. Whoever renames or moves a class changes the right side of a table here and
leaves the name, so that old folders load and new ones can be read by older versions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from sv_ssl.core.errors import InputError
from sv_ssl.models.audio_papers import AST, BEATs, Pretrained, RawResNet18, ResNet18, ThreeSpectra, Waveform
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import FrameStatistics
from sv_ssl.models.features import KaldiFbank, LogMel, SpeechBrainFbank, SslsvMel
from sv_ssl.models.resnet import FastResNet34, ResNet34, WeSpeakerResNet34

FEATURES: dict[str, type] = {
    "LogMel": LogMel,
    "Waveform": Waveform,
    "ThreeSpectra": ThreeSpectra,
    "SpeechBrainFbank": SpeechBrainFbank,
    "KaldiFbank": KaldiFbank,
    "SslsvMel": SslsvMel,
}
ENCODERS: dict[str, type] = {
    "ECAPA": ECAPA,
    "FastResNet34": FastResNet34,
    "ResNet34": ResNet34,
    "FrameStatistics": FrameStatistics,
    "AST": AST,
    "BEATs": BEATs,
    "Pretrained": Pretrained,
    "RawResNet18": RawResNet18,
    "ResNet18": ResNet18,
    "WeSpeakerResNet34": WeSpeakerResNet34,
}
SIZED_ELSEWHERE = {"BEATs", "Pretrained"}  # by another file, which config.json names
LONGEST = 4096  # characters of a value: a path, such as Pretrained has
NAMES = {kind: name for table in (FEATURES, ENCODERS) for name, kind in table.items()}


def describe_part(part: Any) -> dict[str, Any]:
    """Return what config.json says of a front end or an encoder: its name and its constructor's arguments.

    >>> describe_part(FrameStatistics(n_mels=20))
    {'name': 'FrameStatistics', 'n_mels': 20}
    """
    return {"name": NAMES.get(type(part), type(part).__name__), **part.config}


def with_name(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description with its name first; the first model folders had no front end but LogMel, and no name."""
    return {"name": "LogMel", **described}


def part(config: Mapping[str, Any], what: str, folder: str | os.PathLike) -> dict[str, Any]:
    """Return what a config.json says of its features or its encoder: plain values by name."""
    found = config.get(what)
    if not isinstance(found, dict) or not all(map(_is_plain, found.values())):
        raise InputError(f"{folder}/config.json does not describe its {what}: wanted plain values by name")
    return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= LONGEST)


def read_parts(config: Mapping[str, Any], folder: str | os.PathLike) -> Iterator[tuple[str, type, dict]]:
    """Yield the name, the class and the arguments of the front end, then of the encoder."""
    for what, kinds in (("features", FEATURES), ("encoder", ENCODERS)):
        arguments = with_name(part(config, what, folder))
        name = arguments.pop("name")
        if name not in kinds:
            raise InputError(f"{folder}: the {what} {name!r} is not one of {', '.join(kinds)}")
        yield name, kinds[name], arguments
