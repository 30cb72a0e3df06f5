import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_ssl.core.errors import InputError
from sv_ssl.verification.manifest_columns import read_manifest


@pytest.fixture
def file(tmp_path):
    def write(text, name="meta.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


MANIFEST = "ID,duration,wav,start,stop,spk_id,gender\n"


def test_ids_of_a_manifest_in_the_order_of_the_trials(file):
    rows = "u1,2.5,$data_root/a/1.wav,0,9,anna,f\nu2,3,$data_root/b/1.wav,0,9,otto,m\nu3,1,c.wav,0,9,c,m\n"
    path = file(MANIFEST + rows)
    columns = read_manifest(path, ["u3", "u1"])
    assert columns["gender"] == ["m", "f"]
    assert columns["duration"] == ["1", "2.5"]
    assert list(columns) == MANIFEST.strip().split(",")


@pytest.mark.parametrize("wav", ["$data_root/a/x/1.wav", "a/x/1.wav", "/data/a/x/1.wav", "$data_root/wav/a/x/1.wav"])
def test_ids_that_are_paths_or_ends_of_paths(file, wav):
    path = file(f"ID,wav,gender\nu1,{wav},f\nu2,/data/xa/x/1.wav,m\n")
    assert read_manifest(path, ["a/x/1.wav"])["gender"] == ["f"]


def test_an_id_goes_before_a_path_and_a_path_before_an_end(file):
    path = file("ID,wav,gender\n1.wav,/data/2.wav,f\nother,/data/1.wav,m\nx,$data_root/3.wav,f\ny,/data/3.wav,m\n")
    assert read_manifest(path, ["1.wav", "2.wav", "3.wav", "/data/3.wav"])["gender"] == ["f", "f", "f", "m"]


TABLES = {
    "tabs": "utt\tgender\nb c\tm\na\tf\n",
    "commas": "utt,gender\nb c,m\na,f\n",
    "blanks after commas": "utt, gender\nb c, m\na, f\n",
    "quotes after blanks": 'utt, "gender"\n"b c", "m"\na, f\n',
    "quotes": '"utt","gender"\n"b c","m"\n"a","f"\n',
    "Windows and BOM": "\ufeffutt,gender\r\nb c,m\r\na,f\r\n",
    "blank lines": "\nutt,gender\n\nb c,m\n,\n  \na,f",
    "id is not the first column but called so": "gender,ID\nm,b c\nf,a\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_plain_tables(file, text):
    columns = read_manifest(file(text), ["a", "b c"])
    assert columns["gender"] == ["f", "m"]
    assert set(columns) <= {"utt", "gender", "ID"}


def test_ids_without_a_row_are_named_with_the_cure(file):
    path = file("ID,wav,gender\n" + "".join(f"u{i},/wav/{i}.wav,f\n" for i in range(3)))
    with pytest.raises(InputError) as error:
        read_manifest(path, ["u1", *(f"v{i:02}" for i in range(12))])
    assert str(error.value) == (
        f"{path}: 12 of 13 utterances have no row: "
        "v00, v01, v02, v03, v04, v05, v06, v07, v08, v09, ...; "
        'wanted a row whose "ID" is the id, or whose "wav" ends with it; the first row here is \'u0,/wav/0.wav,f\''
    )


@pytest.mark.parametrize("ids", [["1.wav"], ["twice"]])
def test_several_rows_for_an_id_are_refused(file, ids):
    path = file("ID,wav,gender\nu1,/a/1.wav,f\ntwice,/b/1.wav,m\ntwice,/c/2.wav,f\n")
    with pytest.raises(InputError, match=r"1 utterances .* one row: (1.wav \(lines 2, 3\)|twice \(lines 3, 4\))"):
        read_manifest(path, ids)


def test_a_repeated_id_that_no_trial_names_is_let_be(file):
    assert read_manifest(file("id,gender\na,f\nb,m\nb,f\n"), ["a"])["gender"] == ["f"]


BAD_TABLES = {
    "": "the file is empty",
    "\n\n": "the file is empty",
    "id,gender\n": "then a row an utterance",
    "id\na\n": "wanted a line of different names",
    "id;gender\na;f\n": "wanted a line of different names",
    "id,gender,gender\na,f,f\n": "wanted a line of different names",
    "a,f\nb,m\n": "it begins with 'a,f'",
    "id,gender\na,f\nb\nc,m,x\n": "2 bad rows: line 3: 1 fields where 2 are expected: 'b'; line 4: 3 fields",
    "id,gen\x1bder\na,f\n": "wanted a line of different names",
    b"id,gender\na,\xff\n": "not a CSV in UTF-8",
    b"id,gender\na," + b"x" * 200_000 + b"\n": "not a CSV in UTF-8, somewhere after line 1",
}


@pytest.mark.parametrize("text, message", BAD_TABLES.items(), ids=range(len(BAD_TABLES)))
def test_bad_tables(file, text, message):
    path = file(text)
    with pytest.raises(InputError) as error:
        read_manifest(path, ["a"])
    assert str(path) in str(error.value) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_manifest_that_is_not_there(tmp_path):
    for path, why in ((tmp_path / "none.csv", "cannot read"), (tmp_path, "wanted an ordinary file")):
        with pytest.raises(InputError, match=why):
            read_manifest(path, ["a"])


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text('id,gender\tab"\n\r/wav\0', max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    try:
        columns = read_manifest(path, ["a"])
    except InputError:
        return
    assert len(columns) > 1 and all(len(values) == 1 for values in columns.values())
