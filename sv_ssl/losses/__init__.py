"""Losses: modules `(z, labels) -> scalar` that normalise their inputs; rows of equal labels are positives.

Margins are functions in `sv_ssl.losses.margin`, handed to a loss as an argument.
"""

from sv_ssl.losses.angular import ACL, ADD, OPL, SoftADD
from sv_ssl.losses.classification import CLAR, Focal, MarginSoftmax, Penalised
from sv_ssl.losses.contrastive import AngularPrototypical, InfoNCE, NTXent
from sv_ssl.losses.soft import SoftLabels, soft_cross_entropy

__all__ = [
    "ACL",
    "ADD",
    "CLAR",
    "OPL",
    "AngularPrototypical",
    "Focal",
    "InfoNCE",
    "MarginSoftmax",
    "NTXent",
    "Penalised",
    "SoftADD",
    "SoftLabels",
    "soft_cross_entropy",
]
