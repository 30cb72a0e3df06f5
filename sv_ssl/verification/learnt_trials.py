"""Which trials something was learnt from: a sample of them that is kept with it, and their share in a list.

A trial is the pair of its ids, whichever comes first: other scores, another form or another order of the lines make no
difference.
"""

from __future__ import annotations

import numpy as np

from sv_ssl.core import sketch
from sv_ssl.verification.trials import Trials

KEPT = 512  # trials: 8 KB as text; of a list a tenth of which was learnt from, some fifty of them


def sample(trials: Trials) -> str:
    """Return the sample of N trials as text.

    >>> one = Trials("a", "", "", ["x", "y", "z"], np.array([0, 0]), np.array([1, 2]), None, None)
    >>> share(sample(one), one._replace(test=np.array([2, 0])))
    0.5
    """
    return sketch.least(_numbers(trials), KEPT).astype(">u8").tobytes().hex()


def share(kept: str, trials: Trials) -> float:
    """Return the share of N trials that are among those of a sample, exact for no more than 512 trials."""
    known = np.frombuffer(bytes.fromhex(kept), ">u8").astype(np.uint64)
    met, would = sketch.met(known, _numbers(trials), KEPT)
    return float(met.sum() / max(1, would.sum()))


def is_sample(text: str) -> bool:
    """Return whether a text may be what `sample` returned."""
    try:
        return len(bytes.fromhex(text)) % 8 == 0 and len(text) <= 16 * KEPT
    except ValueError:
        return False


def _numbers(trials: Trials) -> np.ndarray:
    """Return a number for each pair, the same both ways round and everywhere: (N,) uint64."""
    number = sketch.hashes(trials.ids)
    return number[trials.enroll] + number[trials.test]  # modulo 2 ** 64
