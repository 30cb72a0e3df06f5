"""The contract of all methods: hooks, state, what they need, and that none asks what kind of loss it was given."""

import ast
from pathlib import Path

import pytest
import torch
from small_batches import Linear, batch, facts, waves
from torch import nn

from sv_ssl.losses import ACL, CLAR, DINOLoss, InfoNCE, NTXent, Penalised, Rows, SDPNLoss, SwAVLoss, rows
from sv_ssl.methods import DINO, SDPN, Labelled, Method, MoCo, Needs, SimCLR, Step
from sv_ssl.methods.base import Facts
from sv_ssl.methods.clusters import Clusters
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.predictive import Predictive
from sv_ssl.methods.prototype_term import PrototypeTerm
from sv_ssl.methods.swav import SwAV
from sv_ssl.models.heads import Bottleneck, Prototypes

ROOT = Path(__file__).parents[2] / "sv_ssl"
ROOMS = ["methods"]
# What a method is handed by others: whatever it is, its attributes say what it can do.
GIVEN = {"loss", "method", "main", "head", "embedder", "mixup", "classifier"}
METHODS = {
    "SimCLR": lambda: SimCLR(Linear(), NTXent(0.1)),
    "SupCon": lambda: SimCLR(Linear(), NTXent(0.1), labels="speaker"),
    "MoCo": lambda: MoCo(Linear(), InfoNCE(0.1), queue_size=8),
    "SSPS": lambda: SimCLR(Linear(), NTXent(0.1), positives=Positives(2, near=0)),
    "DINO": lambda: DINO(Linear(), Bottleneck(8, 8, 8), Prototypes(8, 6), DINOLoss(6)),
    "SDPN": lambda: SDPN(Linear(), Bottleneck(8, 8, 8), Prototypes(8, 6), SDPNLoss()),
    "SwAV": lambda: SwAV(Linear(), Prototypes(8, 6), SwAVLoss(), queue_size=6),
    "BYOL": lambda: Predictive(Linear(), nn.Linear(8, 8), nn.Linear(8, 8)),
    "SimSiam": lambda: Predictive(Linear(), nn.Linear(8, 8), nn.Linear(8, 8), ema=None),
    "ProtoNCE": lambda: MoCo(Linear(), InfoNCE(0.1), queue_size=8, prototypes=PrototypeTerm([2, 3])),
    "MoCo by cluster": lambda: MoCo(Linear(), InfoNCE(0.1), queue_size=8, clusters=Clusters([2])),
    "none": lambda: Labelled(Linear(), ACL(0.5), "none"),
    "semi": lambda: Labelled(Linear(), CLAR(NTXent(0.1)), "semi"),
    "full": lambda: Labelled(Linear(), Penalised(nn.functional.cross_entropy), "full"),
}
TEACHERS = {"DINO", "SDPN"}  # which keep the teacher's embedder
LABELS = {"SupCon": "all", "semi": "some", "full": "all"}


@pytest.mark.parametrize(
    "path", [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))], ids=lambda p: p.name
)
def test_no_isinstance_on_a_loss_or_a_method(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            asked = ast.unparse(node.args[0])
            assert asked.split(".")[-1].split("[")[0] not in GIVEN, f"{path}:{node.lineno} asks what {asked} is"
            kinds = ast.unparse(node.args[1])
            assert "Loss" not in kinds and "Method" not in kinds, f"{path}:{node.lineno}"


def batch_for(method, seed=0):
    """The crops that a method cannot do without."""
    fields = {}
    if type(method).__name__ in TEACHERS:
        fields["short"] = waves(3, 4, seed + 100)
    if method.needs.clean:
        fields["clean"] = waves(1, 4, seed + 200)
    return batch(method.needs.views if type(method).__name__ in TEACHERS else 2, seed=seed, **fields)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_prepared_stepped_and_resumed(name):
    def made():
        torch.manual_seed(0)
        method = METHODS[name]().train()
        method.prepare(facts([0, 1, 1, 0]))
        return method, torch.optim.SGD(method.parameter_groups(), 0.1)

    def steps(method, optimizer, seeds):
        losses = []
        for seed in seeds:
            method.on_step_start(seed / 2)
            step = method(batch_for(method, seed))
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            method.on_step_end(seed / 2)
            losses.append(step.loss.item())
        return losses

    method, optimizer = made()
    assert isinstance(method, Method) and isinstance(method.needs, Needs)
    assert method.needs.labels == LABELS.get(name, "none") and method.needs.partners == 0
    method.on_epoch_start(1)
    whole = steps(method, optimizer, range(4))
    method.on_epoch_end(1)
    assert len(set(whole)) == 4 and method.embedder_to_keep().dim == 8
    assert (method.embedder_to_keep() is method.embedder) == (name not in TEACHERS)

    first, optimizer = made()
    assert steps(first, optimizer, range(2)) == whole[:2]
    second, other = made()
    second.load_state_dict(first.state_dict())
    assert steps(second, other, range(2, 4)) == whole[2:]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_what_is_watched(name):
    method = METHODS[name]().train()
    method.prepare(facts([0, 1, 1, 0]))
    given = batch_for(method)
    step = method(given)
    assert isinstance(step, Step) and step.loss.shape == () and step.loss.requires_grad
    n_rows = 4 * (len(given.views) or len(given.short))
    assert step.z.shape == (n_rows, 8) and not step.z.requires_grad and step.labels.shape == (n_rows,)
    assert all(value.shape == () and not value.requires_grad for value in step.log.values())
    assert step.h is None or step.h.shape == (n_rows, 8) and not step.h.requires_grad


def test_a_method_of_ones_own_needs_only_a_forward():
    class Mine(Method):
        def __init__(self):
            super().__init__()
            self.embedder = Linear()

        def forward(self, batch):
            z = self.embedder(batch.views.flatten(0, 1))
            return Step(z.square().mean(), z.detach(), batch.rows.repeat(2))

    method = Mine()
    for hook in (method.on_epoch_start, method.on_step_start, method.on_step_end, method.on_epoch_end):
        hook(1)
    method.prepare(Facts(4, None, 0, 1, 1, 0))
    method.weights_loaded()
    assert method.needs == Needs() and len(method.parameter_groups()[0]["params"]) == 2
    with pytest.raises(NotImplementedError, match="Method has no forward"):
        Method()(batch())


def test_a_loss_is_called_the_way_that_it_wants():
    given = Rows(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), torch.randn(4, 3))
    assert rows.evaluate(NTXent(0.1), given) == NTXent(0.1)(given.z, given.labels)
    assert rows.evaluate(ACL(0.5), given) == ACL(0.5)(given)
    rows.set_progress(nn.functional.cross_entropy, 1.0)  # no schedule, no classes: nothing to do
    rows.resize(nn.functional.cross_entropy, 3)
