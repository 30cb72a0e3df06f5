import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl.core import sketch

names = st.lists(st.text(max_size=5), max_size=60)


@given(names, names, st.integers(1, 100))
def test_names_are_known_again_and_no_others(before, now, most):
    kept = sketch.least(sketch.hashes(before), most)
    met, would = sketch.met(kept, sketch.hashes(now), most)
    assert len(kept) <= most
    assert all(name in before for name, hit in zip(now, met) if hit)
    assert [name in before for name, kept_too in zip(now, would) if kept_too] == met[would].tolist()
    if len(set(before)) < most:
        assert would.all()


def test_a_sample_tells_the_share_of_large_sets():
    kept = sketch.least(sketch.hashes(f"utterance {i}" for i in range(20_000)), 512)
    met, would = sketch.met(kept, sketch.hashes(f"utterance {i}" for i in range(15_000, 35_000)), 512)
    assert abs(met.sum() / would.sum() - 0.25) < 0.06


def test_hashes_are_the_same_everywhere():
    """They are kept in files."""
    fixed = ["b4b2797457a0a6e4", "2f42665b399ef840", "a2c6cd8f2d611fce"]
    assert [f"{value:016x}" for value in sketch.hashes(["", "a", "\udcff"])] == fixed
    assert sketch.hashes([]).dtype == np.uint64
