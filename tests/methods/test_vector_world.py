"""Methods in a world of vectors: that each learns, in which order, and that a collapse raises the alarm it should."""

from functools import lru_cache, partial

import pytest
import torch
from vector_world import Encoder, World, error_rate, fit

from sv_ssl.losses import Barlow, DeepClusterLoss, DINOLoss, InfoNCE, LeJEPA, NTXent, SDPNLoss, SwAVLoss, VICReg, VISReg
from sv_ssl.methods import DINO, SDPN, MoCo, Positives, SimCLR
from sv_ssl.methods.deepcluster import DeepCluster
from sv_ssl.methods.predictive import Predictive
from sv_ssl.methods.swav import SwAV
from sv_ssl.models.heads import Bottleneck, Prototypes, mlp
from sv_ssl.training import watch

RECORDINGS, SPEAKERS = 800, 200


def simclr(encoder, loss=None, head=False, **options):
    return SimCLR(encoder, loss or NTXent(0.1), mlp(32, 128, 64, 2) if head else None, **options)


def ssps(encoder, clusters, near):
    return simclr(encoder, positives=Positives(clusters, near, start=12, queue_size=4800))


def dino(encoder, **options):
    return DINO(encoder, Bottleneck(32, 128, 32), Prototypes(32, 512, 1), DINOLoss(512, **options), ema=0.99)


def sdpn(encoder, **options):
    return SDPN(encoder, Bottleneck(32, 128, 32), Prototypes(32, 64), SDPNLoss(**options), ema=0.99)


def byol(encoder, ema=0.99, **options):
    return Predictive(encoder, mlp(32, 128, 64, 2), mlp(64, 128, 64), ema, **options)


# Made with an encoder, learns for so many epochs, has no more than this part of the random encoder's EER.
LEARN = {
    "SimCLR": (simclr, 0.4),
    "MoCo": (lambda encoder: MoCo(encoder, InfoNCE(0.1), 1024, 0.99), 0.45),
    "VICReg": (partial(simclr, loss=VICReg(), head=True), 0.35),
    "Barlow": (partial(simclr, loss=Barlow(), head=True), 0.45),
    "LeJEPA": (partial(simclr, loss=LeJEPA(directions=128), head=True), 0.4),
    "VISReg": (partial(simclr, loss=VISReg(directions=128)), 0.35),
    "BYOL": (byol, 0.6),
    "SwAV": (lambda encoder: SwAV(encoder, Prototypes(64, 256, 1), SwAVLoss(), mlp(32, 128, 64, 2)), 0.35),
    "DeepCluster": (lambda encoder: DeepCluster(encoder, DeepClusterLoss(), mlp(32, 128, 64, 2), [800] * 2), 0.5),
    "DINO": (dino, 0.55),
    "DINO, Sinkhorn": (partial(dino, centring="sinkhorn"), 0.55),
    "SDPN": (sdpn, 0.75),
}
COLLAPSES = {
    "VICReg without variance": (partial(simclr, loss=VICReg(var=0), head=True), "raise var_weight"),
    "BYOL without stop-gradient": (partial(byol, ema=None, stop_gradient=False), "keep stop_gradient"),
    "DINO without a centre": (partial(dino, momentum=1.0), "centre the targets"),
    "DINO without sharpening": (partial(dino, teacher_temperature=0.1), "lower the teacher's temperature"),
    "SDPN without sharing out": (partial(sdpn, form="none", me_max_weight=0.0), "centre the targets or share them out"),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache
def untrained():
    torch.manual_seed(0)
    return error_rate(Encoder(), World())[0]


@lru_cache
def trained(name, epochs=12):
    _, eer, records = fit(
        LEARN[name][0], epochs, n_short=4 if "DINO" in name or name == "SDPN" else 0, watch=watch.figures
    )
    return eer[0], records


def alarms(records):
    return [alarm for record in records for alarm in watch.alarms(record)]


@pytest.mark.parametrize("name", LEARN)
def test_learns_and_raises_no_alarm(name):
    eer, records = trained(name)
    assert eer < LEARN[name][1] * untrained()
    assert alarms(records) == []


@pytest.mark.parametrize("name", COLLAPSES)
def test_a_collapse_raises_the_alarm_that_names_its_cause(name):
    make, cause = COLLAPSES[name]
    _, _, records = fit(make, n_short=4 if "DINO" in name or "SDPN" in name else 0, watch=watch.figures)
    assert any(cause in alarm for alarm in alarms(records))


def test_sampled_positives_teach_the_speaker_where_views_teach_the_recording():
    """SSPS after 12 epochs of SimCLR: its gain, its window in K, and what is to be seen of it."""
    plain = fit(simclr, 18, n_short=0)[1][0]
    step_log = lambda step: {name: float(value) for name, value in step.log.items()}  # noqa: E731
    results = {
        key: fit(partial(ssps, clusters=key[0], near=key[1]), 18, n_short=0, watch=step_log)
        for key in [(RECORDINGS, 1), (RECORDINGS, 0)]
    }
    [beside, own] = [(eer[0], records) for _, eer, records in results.values()]
    assert beside[0] < 0.75 * plain  # a neighbouring cluster is of the same speaker, in another recording
    assert beside[0] < own[0]  # the own cluster is the own recording: nothing new is learnt
    before, after = beside[1][11], beside[1][-1]
    assert after["loss"] > before["loss"]  # other recordings are harder
    assert after["same_recording"] < 0.4 < own[1][-1]["same_recording"] and after["coverage"] > 0.6
    assert after["speaker_nmi"] > before["speaker_nmi"]
