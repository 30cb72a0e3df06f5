"""Every golden case of the self-supervised losses, in float64 with its gradients and in float32."""

import pytest
import torch
from support import golden

from sv_ssl.losses import (
    WMSE,
    Barlow,
    DeepClusterLoss,
    DINOLoss,
    InfoNCE,
    NTXent,
    Rows,
    SDPNLoss,
    Stages,
    SwAVLoss,
    VIbCReg,
    VICReg,
    byol,
    geometry,
    simsiam,
)
from sv_ssl.losses import dino_loss as dino
from sv_ssl.losses import sdpn_loss as sdpn
from sv_ssl.losses.dino_loss import dino_stats
from sv_ssl.losses.protonce import concentration, prototype_term
from sv_ssl.losses.sdpn_loss import sdpn_targets
from sv_ssl.losses.sinkhorn import sinkhorn
from sv_ssl.training import schedules

CASES = golden.read("ssl.json")
GROUPS_ELSEWHERE = {
    "gate": "pseudo-labels",
    "subcenter": "margin softmax with sub-centres",
    "ssps": "positive sampling and k-means",
    "quality": "quality of a clustering",
    "mhfa": "pooling of the layers of a large encoder",
}


def stacked(z1, z2):
    return torch.cat([z1, z2]), torch.arange(len(z1)).repeat(2)


def make_vicreg(inv_weight=1.0, var_weight=1.0, cov_weight=0.1, var_reduction="sum", inv_reduction="mean"):
    return VICReg(inv_weight, var_weight, cov_weight, var_reduction, inv_reduction.removesuffix("_dims"))


def vicreg(z1, z2, **options):
    return make_vicreg(**options)(*stacked(z1, z2))


def vicreg_terms(z1, z2, **options):
    return dict(zip(("inv", "var", "cov"), make_vicreg(**options).terms(z1, z2)))


def vibcreg(z1, z2, cov_weight):
    return VIbCReg(cov=cov_weight)(*stacked(z1, z2))


def infonce(z1, z2, tau):
    return NTXent(tau, symmetric=False)(*stacked(z1, z2))


def two_stage(y1, y2, z1, z2, y_infonce=0.0, y_vicreg=0.0, z_infonce=0.0, z_vicreg=0.0, **options):
    def losses():
        return [NTXent(0.07, symmetric=False), make_vicreg(**options)]

    z, labels = stacked(z1, z2)
    stages = Stages(losses(), losses(), [y_infonce, y_vicreg, z_infonce, z_vicreg])
    return stages(Rows(z, labels, h=torch.cat([y1, y2])))


def barlow_twins(z1, z2, lambd=0.005, **options):
    return Barlow(lambd, **options)(*stacked(z1, z2))


def wmse(z1, z2, **options):
    return WMSE(**options)(*stacked(z1, z2))


def make_dino(center, tau_s=0.1, tau_t=0.04, **options):
    loss = DINOLoss(len(center), tau_s, tau_t, **options).to(center.dtype)
    loss.centre.copy_(center)
    return loss


def dino_loss(student, teacher, center, **temperatures):
    return make_dino(center, **temperatures)(student, teacher)


def dino_center(center, teacher, momentum):
    loss = make_dino(center, momentum=momentum)
    loss.update(teacher)
    return loss.centre


def dino_statistics(student, teacher, center, **temperatures):
    loss = make_dino(center, **temperatures)
    targets = loss.targets(teacher)
    value = loss.compare(student, targets)
    stats = dino_stats(value, targets)
    return {"loss": value, **stats, "usage_entropy": stats["usage_perplexity"].log()}


def dino_last_layer(x, v):
    return geometry.cosines(geometry.unit(x), geometry.unit(v))


def dino_sinkhorn(student, teacher, tau_t, iters):
    return make_dino(teacher[0, 0] * 0, tau_t=tau_t, centring="sinkhorn", iterations=iters)(student, teacher)


def sinkhorn_of(scores, epsilon=0.05, iters=3, form="logits"):
    return sinkhorn(scores, epsilon, iters, form)


def with_prototypes(rows, prototypes):
    return geometry.cosines(geometry.unit(rows), geometry.unit(prototypes))


def targets_of(target, prototypes, sinkhorn_form="probs"):
    return sdpn_targets(with_prototypes(target, prototypes), form=sinkhorn_form)


def sdpn_parts(anchors, target, prototypes, embeddings=(), sinkhorn_form="probs", koleo_weight=0.1):
    loss = SDPNLoss(form=sinkhorn_form, koleo_weight=koleo_weight)
    student = [with_prototypes(view, prototypes) for view in anchors]
    return loss(student, with_prototypes(target, prototypes), embeddings)._asdict()


def byol_of(p1, p2, z1, z2):
    return byol([p1, p2], [z1, z2])


def simsiam_of(p1, p2, z1, z2):
    return simsiam([p1, p2], [z1, z2])


def swav(scores, queue_scores=None):
    return SwAVLoss()(scores, queue_scores)


def deepcluster(scores, assignments, tau=0.1):
    return DeepClusterLoss(tau)(scores, assignments)


def protonce(q, keys, queue, centroids, assignments, phi, tau):
    contrastive = InfoNCE(tau)(q, keys, geometry.unit(queue))
    return contrastive + prototype_term(q, centroids, assignments, phi)


def concentration_of(x, centroids, assignments, tau):
    return concentration(x, centroids, assignments, tau)


def momentum_cosine(step, total, start, end):
    return schedules.cosine(int(step), int(total), start, end)


def temperature_warmup(epoch, start, end, epochs):
    return schedules.linear(int(epoch), epochs - 1, start, end)


ADAPTERS = {
    "vicreg": vicreg,
    "vicreg_terms": vicreg_terms,
    "vibcreg": vibcreg,
    "infonce": infonce,
    "two_stage": two_stage,
    "barlow_twins": barlow_twins,
    "wmse": wmse,
    "byol": byol_of,
    "simsiam": simsiam_of,
    "swav": swav,
    "deepcluster": deepcluster,
    "protonce": protonce,
    "concentration": concentration_of,
    "dino": dino_loss,
    "dino_center": dino_center,
    "dino_stats": dino_statistics,
    "dino_last_layer": dino_last_layer,
    "dino_sinkhorn": dino_sinkhorn,
    "rdino_diversity": dino.diversity,
    "sinkhorn": sinkhorn_of,
    "sdpn_targets": targets_of,
    "sdpn": sdpn_parts,
    "me_max": sdpn.me_max,
    "koleo": lambda x: sdpn.koleo(x),
    "fro_norm": lambda x: sdpn.fro_norm(x),
    "momentum_cosine": momentum_cosine,
    "temperature_warmup": temperature_warmup,
    "effective_rank": lambda x, centered=True: geometry.effective_rank(x, centered),
    "usage": geometry.usage,
}
FUNCTIONS_ELSEWHERE = {"layer_rates": "learning rates of the layers of a large encoder"}  # of the group schedule
HERE = [case for case in CASES if case["group"] not in GROUPS_ELSEWHERE and case["function"] not in FUNCTIONS_ELSEWHERE]
FLOAT64_ONLY = ("koleo_hand_same",)  # in float32 the two rows differ by rounding, and the loss is its logarithm


def tensors(case, dtype):
    """Assignments stay integers, everything else becomes `dtype`; the clusterings of ProtoNCE differ in size."""

    def convert(name, value):
        if case["function"] == "protonce" and name in ("centroids", "phi"):
            return [torch.tensor(clustering, dtype=dtype) for clustering in value]
        return torch.tensor(value, dtype=torch.int64 if name == "assignments" else dtype)

    return {name: convert(name, value) for name, value in case["inputs"].items()}


def mistakes(case, dtype):
    exact = 1e-8 if dtype == torch.float64 else 2e-5
    return golden.mistakes(case, ADAPTERS[case["function"]], tensors(case, dtype), exact)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_golden_case(dtype):
    cases = [case for case in HERE if dtype == torch.float64 or case["name"] not in FLOAT64_ONLY]
    assert [text for case in cases for text in mistakes(case, dtype)] == []


def test_no_function_is_left_out():
    assert {case["function"] for case in HERE} == set(ADAPTERS)
    assert {case["group"] for case in CASES} >= set(GROUPS_ELSEWHERE)


def test_a_wrong_value_is_noticed():
    case = next(case for case in CASES if case["name"] == "sdpn_rand")
    assert not mistakes(case, torch.float64)
    assert mistakes(
        {**case, "expected": {**case["expected"], "total": case["expected"]["total"] + 1e-7}}, torch.float64
    )
    assert mistakes({**case, "grad": {"prototypes": [[0.0] * 6] * 7}}, torch.float64)
