"""What a file claims to hold, compared with the bytes that it has, before memory is taken for it."""

from __future__ import annotations

from zipfile import ZIP_STORED, ZipFile

SMALL = 1 << 28  # bytes that may be claimed in any case
PACKED = 200  # times that embeddings and ids shrink at most; a zip bomb a thousand times


def check(claimed: int, held: int, times: int = 1) -> None:
    """Raise ValueError for a claim of much more than the bytes that are there can stand for.

    >>> check(claimed=10**12, held=1000)
    Traceback (most recent call last):
    ...
    ValueError: it claims to hold 1,000,000,000,000 bytes in 1,000
    """
    if claimed > max(SMALL, times * held):
        raise ValueError(f"it claims to hold {claimed:,} bytes in {held:,}")


def check_zip(archive: ZipFile, held: int, packed: bool = True) -> None:
    """Raise ValueError for members that need more bytes than the zip has, or unpack to far more (or at all)."""
    members = archive.infolist()
    if (claimed := sum(member.compress_size for member in members)) > held:
        raise ValueError(f"its members claim {claimed:,} bytes of its {held:,}")
    if not packed and any(member.compress_type != ZIP_STORED for member in members):
        raise ValueError("its members are packed")
    check(sum(member.file_size for member in members), held, PACKED if packed else 1)
