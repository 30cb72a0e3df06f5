"""Before their first epoch sampled positives change nothing, whatever the method: bit for bit."""

import pytest
import torch
from small_batches import Linear, batch, facts, waves

from sv_ssl.losses import DINOLoss, InfoNCE, NTXent, SDPNLoss, SwAVLoss, VICReg
from sv_ssl.methods import DINO, SDPN, MoCo, SimCLR
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.swav import SwAV
from sv_ssl.models.heads import Bottleneck, Prototypes

N, START = 16, 2
METHODS = {
    "SimCLR": lambda **o: SimCLR(Linear(norm=True), NTXent(0.2), **o),
    "VICReg": lambda **o: SimCLR(Linear(norm=True), VICReg(), **o),
    "MoCo": lambda **o: MoCo(Linear(norm=True), InfoNCE(0.2), queue_size=8, **o),
    "SwAV": lambda **o: SwAV(Linear(norm=True), Prototypes(8, 6), SwAVLoss(), queue_size=8, **o),
    "DINO": lambda **o: DINO(Linear(norm=True), Bottleneck(8, 8, 8), Prototypes(8, 6), DINOLoss(6), ema=0.9, **o),
    "SDPN": lambda **o: SDPN(Linear(norm=True), Bottleneck(8, 8, 8), Prototypes(8, 6), SDPNLoss(), ema=0.9, **o),
}


def losses(name, epochs, **options):
    torch.manual_seed(0)
    method = METHODS[name](**options).train()
    method.prepare(facts(n_rows=N))
    optimizer, found = torch.optim.SGD(method.parameter_groups(), 0.1), []
    for epoch in range(1, epochs + 1):
        method.on_epoch_start(epoch)
        for number, rows in enumerate(torch.arange(N).split(8)):
            seed = 10 * epoch + number
            short = waves(2, 8, seed + 1000) if method.needs.short else None
            given = batch(method.needs.views, 8, seed, short=short, clean=waves(1, 8, seed + 2000))._replace(rows=rows)
            step = method(given)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            method.on_step_end(epoch)
            found.append(step.loss.item())
        method.on_epoch_end(epoch)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_before_the_start_nothing_changes(name):
    plain = losses(name, START + 1)
    sampled = losses(name, START + 1, positives=Positives(4, near=0, start=START, queue_size=N))
    assert sampled[: 2 * START] == plain[: 2 * START] and sampled[2 * START :] != plain[2 * START :]
