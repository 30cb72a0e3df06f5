import pytest

from sv_ssl.core import json_file
from sv_ssl.core.errors import InputError


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"{", "is damaged: Expecting"),
        (b"[1]", "wanted a JSON object"),
        (b"\xff", "wanted JSON in UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is damaged: Exceeds the limit"),
        (b'{"a": ' * 65 + b"1" + b"}" * 65, "more than 64 brackets"),
        (b"[" * 100_000, "more than 64 brackets"),
        (b" " * (2**20 + 1), "more than 1,048,576 bytes: wanted JSON"),
    ],
)
def test_what_is_no_small_object_is_one_line(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}.* {reason}") as caught:
        json_file.read_object(path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot read .*gone.json: No such file"):
        json_file.read_object(tmp_path / "gone.json")
    with pytest.raises(InputError, match="wanted an ordinary file, this is a folder"):
        json_file.read_object(tmp_path)


def test_an_object_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"ä": [1.5, null, {"b": "c"}]}', encoding="utf-8")
    assert json_file.read_object(tmp_path / "a.json") == {"ä": [1.5, None, {"b": "c"}]}
