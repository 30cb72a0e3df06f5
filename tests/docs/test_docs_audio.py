"""docs/audio.md: its commands, in its order, on small trees of the published form."""

import json
import re

import numpy as np
import pytest
from support import pages

from data_prep import fsdnoisy18k, nsynth, speech_commands
from sv_ssl import audio
from sv_ssl.audio.effects import SAFE, named

PAGE = pages.read("docs/audio.md")
COMMANDS = [line for block in pages.blocks(PAGE, "sh") for line in block.text.splitlines()]
SMALL = [
    "--encoder_size",
    "tiny",
    "--n_mels",
    "20",
    "--crop_seconds",
    "0.2",
    "--epochs",
    "1",
    "--batch_size",
    "8",
    "--num_workers",
    "0",
    "--device",
    "cpu",
]


@pytest.fixture
def data(tmp_path):
    """Words of six speakers and ESC-50's tree of three classes, below tmp_path/data."""
    rng = np.random.default_rng(0)

    def sound(name):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(tmp_path / "data" / name, 0.1 * rng.standard_normal(4800), 16000)

    lines = ["wav,spk_id,label,fold"]
    for speaker in "abcdef":
        for word in ("yes", "no"):
            for take in range(2):
                sound(f"words/{word}/{speaker}{take}.wav")
                lines.append(f"{word}/{speaker}{take}.wav,{speaker},{word},train")
    (tmp_path / "data" / "words" / "words.csv").write_text("\n".join(lines) + "\n")
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, label in enumerate(("dog", "rain", "clock")):
            sound(f"ESC-50-master/audio/{fold}-{target}.wav")
            lines.append(f"{fold}-{target}.wav,{fold},{target},{label},False,{fold}{target},A")
    (tmp_path / "data" / "ESC-50-master" / "meta").mkdir()
    (tmp_path / "data" / "ESC-50-master" / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_page_leads_to_pictures(data):
    assert len(COMMANDS) == 9
    for line in COMMANDS:
        done = pages.run(line, data, SMALL)
        wanted = (0, 3) if "esc50.py" in line else (0,)  # 3: counts are not the published ones
        assert done.returncode in wanted and "Traceback" not in done.stderr, f"{line}\n{done.stdout}\n{done.stderr}"
    results = {path.name.split("-")[0] for path in (data / "results" / "audio").iterdir()}
    assert results == {"acl", "add", "clar", "clar_ssl", "clar_supervised"}
    assert json.loads((data / "analysis" / "analysis.json").read_text())["n_classes"] == 2
    assert {path.name for path in (data / "analysis").glob("*.png")} == {"pairs.png", "map.png"}


def test_what_the_page_says_is_so():
    for number in (sum(part.PUBLISHED.values()) for part in (speech_commands, fsdnoisy18k, nsynth)):
        assert f"{number:,}" in PAGE
    seven = re.search(r"CLAR's seven: ([\w, ]+)\.", PAGE)[1].split(", ")
    assert len(named(seven)) == 7 and set(seven) - set(SAFE) == {"pitch", "stretch"} and len(named()) == len(SAFE)
    for name in re.findall(r"`(?:recipes/voxceleb/)?(hparams/\w+\.yaml)`", PAGE):
        assert any((pages.ROOT / "recipes" / where / name).is_file() for where in ("audio_probes", "voxceleb")), name
    for name in re.findall(r"`(\w+\.py)`", PAGE):
        assert (pages.ROOT / "data_prep" / name).is_file(), name
