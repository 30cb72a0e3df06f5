"""Losses: modules that normalise their inputs and return a scalar; rows of equal labels are positives.

A loss is called with `(z, labels)` or, where it has `takes_rows = True`, with one `Rows`. `sv_ssl.losses.rows.evaluate`
calls it the right way. Losses that compare with prototypes, a teacher or clusters (`DINOLoss`, `SDPNLoss`, `SwAVLoss`,
`DeepClusterLoss`, `byol`, `simsiam`) are called by their methods with what those have. Margins are functions in
`sv_ssl.losses.margin`, weights of negatives in `sv_ssl.losses.negatives`, handed to a loss as an argument.
"""

from sv_ssl.losses.angular import ACL, ADD, OPL, SoftADD
from sv_ssl.losses.classification import CLAR, Focal, MarginSoftmax, Penalised
from sv_ssl.losses.contrastive import AngularPrototypical, InfoNCE, NTXent
from sv_ssl.losses.deepcluster_loss import DeepClusterLoss
from sv_ssl.losses.dino_loss import DINOLoss
from sv_ssl.losses.lejepa import LeJEPA, SIGReg, VISReg
from sv_ssl.losses.prediction import byol, simsiam
from sv_ssl.losses.rows import Rows
from sv_ssl.losses.sdpn_loss import SDPNLoss
from sv_ssl.losses.soft import SoftLabels, soft_cross_entropy
from sv_ssl.losses.stages import Stages
from sv_ssl.losses.swav_loss import SwAVLoss
from sv_ssl.losses.vicreg import WMSE, Barlow, VIbCReg, VICReg

__all__ = [
    "ACL",
    "ADD",
    "CLAR",
    "OPL",
    "WMSE",
    "AngularPrototypical",
    "Barlow",
    "DINOLoss",
    "DeepClusterLoss",
    "Focal",
    "InfoNCE",
    "LeJEPA",
    "MarginSoftmax",
    "NTXent",
    "Penalised",
    "Rows",
    "SDPNLoss",
    "SIGReg",
    "SoftADD",
    "SoftLabels",
    "Stages",
    "SwAVLoss",
    "VIbCReg",
    "VICReg",
    "VISReg",
    "byol",
    "simsiam",
    "soft_cross_entropy",
]
