"""Methods: algorithms that learn, each a module with `forward(batch) -> Step` and hooks, put together from small parts.

`sv_ssl.methods.base` is the contract; ema.py, queue.py, clusters.py, positives.py, classes.py and mixup.py are the
parts.
"""

from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.dino import DINO
from sv_ssl.methods.labelled import Labelled
from sv_ssl.methods.moco import MoCo
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.sdpn import SDPN
from sv_ssl.methods.simclr import SimCLR

__all__ = ["DINO", "SDPN", "Facts", "Labelled", "Method", "MoCo", "Needs", "Positives", "SimCLR", "Step"]
