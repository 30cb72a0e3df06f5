"""Find the samples of a plain WAV file by its header, so that they can be read without libsndfile.

libsndfile reads any file, but to open one costs more than to read a crop of it. Most noises, and most recordings in
shards, are plain: mono, 16-bit, little-endian, uncompressed.
"""

from __future__ import annotations

import struct

HEADER_BYTES = 4096  # enough to meet the samples: other chunks before them are short


def find_samples(header: bytes, file_size: int, rate: int) -> tuple[int, int]:
    """Return the byte at which the samples of a plain WAV begin, and their number; (0, 0) for any other file.

    `header` is the beginning of the file, or all of it. A file of another rate is not plain, nor is one that is shorter
    than its header says: whoever reads it in the usual way will be told.

    >>> about = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    >>> header = b"RIFF(   WAVEfmt " + struct.pack("<I", 16) + about + b"data" + struct.pack("<I", 4)
    >>> find_samples(header, file_size=48, rate=8000), find_samples(header, file_size=47, rate=8000)
    ((44, 2), (0, 0))
    """
    if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
        return 0, 0
    plain, begin = False, 12
    while begin + 8 <= len(header):
        name, size = struct.unpack_from("<4sI", header, begin)
        begin += 8
        if name == b"fmt ":
            plain = header[begin : begin + 16] == struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
        elif name == b"data":
            return (begin, size // 2) if plain and begin + size <= file_size else (0, 0)
        begin += size + size % 2  # a chunk of an odd size is padded
    return 0, 0
