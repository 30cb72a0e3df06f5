import kaldiio
import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import xvectors

IDS = ["b-é-1", "a-2", "B-1", "a-1"]
WHO = {"b-é-1": "b-é", "a-2": "a", "B-1": "B", "a-1": "a"}
ROWS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def test_kaldiio_reads_the_vectors_and_their_means(tmp_path):
    xvectors.write(tmp_path / "x", IDS, ROWS, WHO)
    vectors = kaldiio.load_scp(str(tmp_path / "x" / "xvector.scp"))
    assert all(np.array_equal(vectors[name], row) for name, row in zip(IDS, ROWS)) and len(vectors) == 4
    means = kaldiio.load_scp(str(tmp_path / "x" / "spk_xvector.scp"))
    assert means["a"] == pytest.approx((ROWS[1] + ROWS[3]) / 2, abs=1e-6) and means["B"] == pytest.approx(ROWS[2])


def test_lists_are_sorted_by_bytes_as_kaldi_wants_them(tmp_path):
    xvectors.write(tmp_path, IDS, ROWS, WHO)
    assert (tmp_path / "utt2spk").read_text() == "B-1 B\na-1 a\na-2 a\nb-é-1 b-é\n"
    assert (tmp_path / "spk2utt").read_text() == "B B-1\na a-1 a-2\nb-é b-é-1\n"
    assert (tmp_path / "num_utts.ark").read_text() == "B 1\na 2\nb-é 1\n"
    assert [line.split()[0] for line in (tmp_path / "xvector.scp").read_text().splitlines()] == sorted(IDS)


@pytest.mark.parametrize(
    "ids, rows, reason",
    [
        (IDS, ROWS[:3], r"4 ids and embeddings of shape \(3, 5\)"),
        (IDS[:3], ROWS, r"3 ids and embeddings of shape \(4, 5\)"),
        ([*IDS[:3], IDS[0]], ROWS, "the id b-é-1 has more than one embedding"),
        (IDS, ROWS[:, 0], r"4 ids and embeddings of shape \(4,\)"),
        ([], ROWS[:0], "0 ids and embeddings"),
        (IDS, np.stack([ROWS[0], ROWS[1], ROWS[2], -ROWS[1]]), "spk_xvector.scp: the embedding of a is zero"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, ids, rows, reason):
    with pytest.raises(InputError, match=reason):
        xvectors.write(tmp_path / "x", ids, rows, WHO)
    assert not (tmp_path / "x").exists()


def test_the_lists_of_a_folder_of_data_are_kept(tmp_path):
    (tmp_path / "utt2spk").write_text("of all utterances\n")
    with pytest.raises(InputError, match="utt2spk is there, and no xvector.scp: name another folder"):
        xvectors.write(tmp_path, IDS, ROWS, WHO)
    assert [path.name for path in tmp_path.iterdir()] == ["utt2spk"]
    xvectors.write(tmp_path / "x", IDS, ROWS, WHO)
    xvectors.write(tmp_path / "x", IDS, -ROWS, WHO)  # its own, of before


@pytest.mark.parametrize(
    "ids, who, reason",
    [
        (IDS, {"a-1": "a"}, "3 of 4 utterances have no speaker, such as b-é-1"),
        (["a 1", *IDS[1:]], {**WHO, "a 1": "a"}, "Kaldi's ids have no blanks"),
        (IDS, {**WHO, "B-1": "B C"}, "Kaldi's ids have no blanks, 'B C' has"),
    ],
)
def test_what_kaldi_could_not_read_is_refused_before_anything_is_written(tmp_path, ids, who, reason):
    with pytest.raises(InputError, match=reason):
        xvectors.write(tmp_path / "x", ids, ROWS, who)
    assert not (tmp_path / "x").exists()
