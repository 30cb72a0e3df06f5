"""Methods: an embedder, a head and a loss put to work as `forward(views, labels) -> {"loss": ..., "z": ...}`."""

from sv_ssl.methods.moco import Momentum
from sv_ssl.methods.simclr import Siamese

__all__ = ["Momentum", "Siamese"]
