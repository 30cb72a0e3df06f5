"""Follow the chain of an MP3's frames, each of which says where the next begins, without decoding any.

libmpg123 steps over damage without a word, and guesses the number of frames where no header gives it. The chain tells
both. What may lie between frames is passed over: ID3 and APE tags, and whatever follows the last one.
"""

from __future__ import annotations

import re
from functools import cache
from typing import BinaryIO, NamedTuple

RATES = (44100, 48000, 32000)
SLOWER = {3: 1, 2: 2, 0: 4}  # by the bits of the version (MPEG 1, 2, 2.5), what the rates are divided by
LAYER = {3: 1, 2: 2, 1: 3}  # by its bits
KBITS = {  # by layer, and whether the version is MPEG 1; frames of a free format do not say how long they are
    (1, True): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (2, True): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, True): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, False): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, False): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (3, False): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
COUNTED = re.compile(rb"Xing|Info")  # in the first frame, behind its side information
SEARCHED = 65536  # bytes in which a frame is looked for after what is none; libmpg123 gives up after 1024


class Chain(NamedTuple):
    """What the frames of a file say of it."""

    samples: int = 0  # of a channel, those among them that the encoder has put before and behind; 0 where none is found
    counted: bool = False  # whether a header in the first frame gives their number
    broken: int = 0  # the byte at which there should be a frame, though others follow; 0 where there is no such place


class Frame(NamedTuple):
    """What the first three bytes of a frame say."""

    size: int  # bytes from this frame to the next
    samples: int
    kind: tuple[int, int, int]  # version, layer and rate, which all frames of a file share


def follow(file: BinaryIO) -> Chain:
    """Follow the frames of a file from the first to the last.

    >>> import io
    >>> frame = b"\\xff\\xf3\\x68\\xc4" + bytes(212)  # MPEG 2, layer 3, 48 kbit/s, 16 kHz
    >>> follow(io.BytesIO(9 * frame)), follow(io.BytesIO(4 * frame + bytes(50) + 5 * frame))
    (Chain(samples=5184, counted=False, broken=0), Chain(samples=2304, counted=False, broken=864))
    """
    known, samples = _frames(), 0
    place, kind = _search(file, _behind_tags(file, 0))
    file.seek(place)
    counted = COUNTED.search(file.read(48)) is not None
    while kind:
        file.seek(place)
        frame = known.get(file.read(3))
        if frame and frame.kind == kind:
            samples += frame.samples
            place += frame.size
        elif (behind := _behind_tags(file, place)) > place:
            place = behind
        else:
            return Chain(samples, counted, place if _search(file, place, kind)[1] else 0)
    return Chain()


def _search(file: BinaryIO, place: int, kind: tuple | None = None) -> tuple[int, tuple | None]:
    """Return the place and kind of the first frame from a place on that another follows, or the end does."""
    known = _frames()
    file.seek(place)
    block = file.read(SEARCHED)
    at = block.find(b"\xff")
    while at >= 0:
        frame = known.get(block[at : at + 3])
        if frame and kind in (None, frame.kind):
            file.seek(place + at + frame.size)
            head = file.read(3)
            if not head or (following := known.get(head)) and following.kind == frame.kind:
                return place + at, frame.kind
        at = block.find(b"\xff", at + 1)
    return place, None


def _behind_tags(file: BinaryIO, place: int) -> int:
    """Return the place behind the tags that begin here."""
    while True:
        file.seek(place)
        head = file.read(32)
        if head.startswith(b"ID3") and len(head) == 32:
            size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
            place += size + (20 if head[5] & 16 else 10)
        elif head.startswith(b"APETAGEX") and len(head) == 32:
            place += 32 + int.from_bytes(head[12:16], "little")
        elif head.startswith(b"TAG"):
            place += 128
        else:
            return place


@cache
def _frames() -> dict[bytes, Frame]:
    """Return what every beginning of a frame says."""
    every = {}
    for second in range(0xE0, 0x100):
        for third in range(0x10, 0xF0):
            version, layer, rate = second >> 3 & 3, LAYER.get(second >> 1 & 3), third >> 2 & 3
            if version in SLOWER and layer and rate < len(RATES):
                hertz = RATES[rate] // SLOWER[version]
                bits = 1000 * KBITS[layer, version == 3][(third >> 4) - 1]
                samples = 384 if layer == 1 else 1152 if layer == 2 or version == 3 else 576
                slot = 4 if layer == 1 else 1
                size = (samples // 8 // slot * bits // hertz + (third >> 1 & 1)) * slot
                every[bytes((0xFF, second, third))] = Frame(size, samples, (version, layer, rate))
    return every
