"""Random streams have names: no two that differ in anything give the same numbers."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl.core import seeds

ROOT = Path(__file__).parents[2]
ADDRESSES = st.tuples(
    st.integers(0, 3), st.sampled_from(["crops", "order", "noise"]), st.lists(st.integers(0, 2), max_size=4)
)


def drawn(seed, name, numbers):
    return seeds.stream(seed, name, *numbers).random(4).tolist()


@given(st.lists(ADDRESSES, min_size=2, max_size=8, unique_by=str))
def test_streams_that_differ_in_anything_differ(addresses):
    for one, other in combinations(addresses, 2):
        assert drawn(*one) != drawn(*other)


def test_trailing_zeros_make_another_stream():
    """As they do not for numpy's own seeds: the fault of the streams of version 1."""
    one, other = np.random.default_rng((0, 1)), np.random.default_rng((0, 1, 0, 0))
    assert one.random() == other.random()
    rows = [drawn(0, "crops", numbers) for numbers in ([], [0], [0, 0], [1], [1, 0], [1, 0, 0])]
    assert len({str(row) for row in rows}) == len(rows)


def test_the_same_address_gives_the_same_numbers_everywhere():
    assert drawn(0, "crops", [1, 2]) == drawn(0, "crops", [np.int64(1), np.int32(2)])
    assert seeds.stream(0, "crops", 1, 2).integers(1000, size=5).tolist() == [894, 967, 543, 762, 414]
    assert seeds.torch_stream(0, "start").initial_seed() == seeds.torch_stream(0, "start").initial_seed()
    assert seeds.torch_stream(0, "start").initial_seed() != seeds.torch_stream(0, "start", 0).initial_seed()


def test_generators_are_made_in_one_place():
    """Doctests and tests may make their own; what the package draws has a name."""
    made = re.compile(r"default_rng\(|\bGenerator\(|RandomState\(|SeedSequence\(|manual_seed\(")
    found = []
    for path in sorted(path for folder in ("sv_ssl", "data_prep", "recipes") for path in (ROOT / folder).rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if made.search(line) and ">>>" not in line and path.name != "seeds.py":
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found
