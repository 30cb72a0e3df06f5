"""What the chain of its frames tells of an MP3, and what of that becomes of the file."""

import io

import numpy as np
import pytest
import soundfile

from sv_ssl import audio
from sv_ssl.audio import mp3_frames
from sv_ssl.audio.io import AudioError

RATE = 16000
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\4\0\0\0\0\20\0" + bytes(2048)
APE_END = b"APETAGEX" + b"".join(n.to_bytes(4, "little") for n in (2000, 4032, 1)) + bytes(12)
APE = APE_END + bytes(4000) + APE_END


def mp3(tmp_path, how="variable", seconds=4.0):
    """An MP3 of noise, whose first frame has Xing's header -> (that frame, the others)."""
    constant = dict(bitrate_mode="CONSTANT", compression_level=0.5)
    wave = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    with soundfile.SoundFile(tmp_path / "made.mp3", "w", RATE, 1, **(constant if how == "constant" else {})) as sound:
        sound.write(wave)
    content = (tmp_path / "made.mp3").read_bytes()
    size = mp3_frames._frames()[content[:3]].size
    return content[:size], content[size:]


def outcome(tmp_path, content):
    """The number of samples that are read of an MP3, or the error."""
    (tmp_path / "a.mp3").write_bytes(content)
    try:
        frames = audio.info(tmp_path / "a.mp3").frames
        assert len(audio.read(tmp_path / "a.mp3")) == len(audio.read(io.BytesIO(content))) == frames
        return frames
    except AudioError as error:
        assert str(error).startswith(f"{tmp_path}/a.mp3: ") and "\n" not in str(error)
        return error


@pytest.mark.parametrize("how", ["constant", "variable"])
def test_tags_and_bytes_behind_the_last_frame_do_no_harm(tmp_path, how):
    first, rest = mp3(tmp_path, how)
    whole = first + rest
    for before, behind in [
        (ID3V2, b""),
        (b"", ID3V1),
        (b"", APE),
        (b"", APE + ID3V1),
        (ID3V2 + ID3V2, bytes(999)),
    ]:
        assert outcome(tmp_path, before + whole + behind) == 4 * RATE


def test_without_a_header_that_counts_them_the_frames_do(tmp_path):
    """libmpg123 guesses by the size of the file, in which a tag counts too."""
    _, rest = mp3(tmp_path, "constant")
    length = mp3_frames.follow(io.BytesIO(rest)).samples
    assert 4 * RATE < length < 4 * RATE + 2000
    for before, behind in [(b"", b""), (ID3V2, b""), (b"", APE), (ID3V2, ID3V1), (b"", bytes(999))]:
        assert outcome(tmp_path, before + rest + behind) == length


def test_a_file_of_which_a_part_alone_would_be_read_is_refused(tmp_path):
    first, rest = mp3(tmp_path)
    for content in (rest, first + rest + first + rest, first + rest + ID3V1 + ID3V2 + first + rest):
        error = outcome(tmp_path, content)
        assert error.kind == "unreadable" and "are all that can be read" in str(error)


@pytest.mark.parametrize("how", ["constant", "variable"])
@pytest.mark.parametrize("counted", [True, False])
def test_damage_to_the_head_of_a_frame_is_told(tmp_path, how, counted):
    first, rest = mp3(tmp_path, how)
    content = bytearray(first + rest if counted else rest)
    place = 0
    for _ in range(40):
        place += mp3_frames._frames()[bytes(content[place : place + 3])].size
    content[place - 20 : place + 30] = np.random.default_rng(1).bytes(50)
    error = outcome(tmp_path, content)
    assert error.kind == "truncated" and f"damaged at byte {place}:" in str(error)
    lost = outcome(tmp_path, content[: place - 20] + content[place + 30 :])
    assert lost.kind == "truncated" and "damaged at byte" in str(lost)


def test_a_file_that_was_cut_is_told_by_its_header(tmp_path):
    first, rest = mp3(tmp_path)
    error = outcome(tmp_path, first + rest[: len(rest) // 2])
    assert error.kind == "truncated" and f"promises {4 * RATE} samples, its frames hold" in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"\xff" * 9999, b"ID3", ID3V2, ID3V2[:12], APE[:20], b"\xff\xf3\x08\xc4" * 9]
)
def test_what_has_no_frames_has_no_chain(content):
    assert mp3_frames.follow(io.BytesIO(content)) == (0, False, 0)
