"""Read, write and change waves. `transform`, `noise` and `effects` are imported by name: the last two need torch."""

from sv_ssl.audio.decoder import MIN_SECONDS, STEP, AudioError
from sv_ssl.audio.io import AUDIO_SUFFIXES, AudioInfo, crops, find, fit, info, parts, read, write

__all__ = [
    "AUDIO_SUFFIXES",
    "MIN_SECONDS",
    "STEP",
    "AudioError",
    "AudioInfo",
    "crops",
    "find",
    "fit",
    "info",
    "parts",
    "read",
    "write",
]
