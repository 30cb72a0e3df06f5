"""Read, write and change waves. `noise` and `effects` are imported by name: they need torch."""

from sv_ssl.audio.io import (
    AUDIO_SUFFIXES,
    MIN_SECONDS,
    STEP,
    AudioError,
    AudioInfo,
    crops,
    find,
    info,
    parts,
    read,
    write,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "MIN_SECONDS",
    "STEP",
    "AudioError",
    "AudioInfo",
    "crops",
    "find",
    "info",
    "parts",
    "read",
    "write",
]
