"""Cells of the tables of a study, and what both kinds of pages say."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from sv_ssl.study.run_files import Result


def mean_sd(values: Sequence[float], digits: int) -> str:
    """Return mean and deviation over seeds.

    >>> mean_sd([1.0, 3.0], 1), mean_sd([1.0], 1), mean_sd([], 1)
    ('2.0 ± 1.4', '1.0', '')
    """
    return f"{statistics.mean(values):.{digits}f}{deviation(values, digits)}" if values else ""


def deviation(values: Sequence[float], digits: int) -> str:
    """Return the deviation over seeds, where there are several.

    >>> deviation([1.0, 3.0], 1), deviation([1.0], 1)
    (' ± 1.4', '')
    """
    return f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""


def interval(ends: Sequence[float], scale: float) -> str:
    """Return the ends of an interval.

    >>> interval([0.1, 0.2], 100)
    '[10.00, 20.00]'
    """
    return f"[{scale * ends[0]:.2f}, {scale * ends[1]:.2f}]"


def mean_of(results: Sequence[Result], key: str, digits: int) -> str:
    """Return the mean of a number that some results have."""
    values = [result[key] for result in results if result.get(key) is not None]
    return f"{statistics.mean(values):,.{digits}f}" if values else ""


def commits(results: Collection[Result]) -> str:
    """Return the commits that made the results, shortened."""
    return ", ".join(sorted({str(result.get("commit"))[:12] for result in results}))
