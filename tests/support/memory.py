"""Measure what a piece of work allocates."""

import numpy as np
from torch.profiler import ProfilerActivity, profile


def peak(work):
    """-> bytes at the height of what `work` allocates with PyTorch."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max()
