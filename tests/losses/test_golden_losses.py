"""Every golden case of a loss, in float64 with its gradients and in float32: inputs are raw, values are known."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from support import golden
from torch import nn

from sv_ssl.losses import (
    ACL,
    ADD,
    CLAR,
    OPL,
    AngularPrototypical,
    Focal,
    InfoNCE,
    MarginSoftmax,
    NTXent,
    Rows,
    SoftADD,
    geometry,
)
from sv_ssl.losses.angular import angular_pairs
from sv_ssl.losses.contrastive import compare, contrast
from sv_ssl.losses.margin import additive, angular
from sv_ssl.methods import MoCo
from sv_ssl.methods.queue import enqueue

CASES = [case for case in golden.read("losses.json") if case["group"] != "metrics"]


def make_margin(margin_type="none", m=0.0, fallback="arcface"):
    return {"none": None, "am": partial(additive, m=m), "aam": partial(angular, m=m, beyond_pi=fallback)}[margin_type]


def two_views(a):
    return torch.arange(len(a)).repeat(2)


def ntxent(z1, z2, tau, symmetric, **margin):
    return NTXent(tau, make_margin(**margin), symmetric)(torch.cat([z1, z2]), two_views(z1))


def ntxent_sym(z1, z2, tau, labels=None, **margin):
    if labels is None:
        return ntxent(z1, z2, tau, True, **margin)
    # Without the negatives of the anchor's own speaker.
    margin_of, speaker = make_margin(**margin) or (lambda cosine, at: cosine), labels.repeat(2)
    cosine, positive = compare(NTXent(tau).sides(torch.cat([z1, z2]), two_views(z1)))
    own_speaker = (speaker[:, None] == speaker) & ~positive
    return contrast(margin_of(cosine, at=positive).masked_fill(own_speaker, -torch.inf) / tau, positive)


def bidirectional(z1, z2, tau, **margin):
    return (ntxent(z1, z2, tau, False, **margin) + ntxent(z2, z1, tau, False, **margin)) / 2


def angular_prototypical(z1, z2, w, b):
    loss = AngularPrototypical()
    loss.scale.data = torch.tensor(w, dtype=z1.dtype)
    return loss(torch.cat([z1, z2]), two_views(z1))  # b cancels


def supcon(z, labels, tau, mode="out", **margin):
    return NTXent(tau, make_margin(**margin), positives=mode)(z, labels)


def moco(q, k, queue, tau, labels=None, queue_labels=None, **margin):
    return InfoNCE(tau, make_margin(**margin))(q, k, geometry.unit(queue), labels, queue_labels)


def moco_two_way(q1, k2, queue2, q2, k1, queue1, tau, **margin):
    return (moco(q1, k2, queue2, tau, **margin) + moco(q2, k1, queue1, tau, **margin)) / 2


def fifo(queue, batches, ptr):
    queue = queue.clone()
    for batch in batches:
        ptr = enqueue(queue, ptr, batch)
    return {"queue": queue, "ptr": ptr}


def ema(theta_k, theta_q, momentum, steps):
    embedder = nn.ParameterList([nn.Parameter(theta_k)])
    embedder.dim = 1
    method = MoCo(embedder, InfoNCE(1.0), queue_size=1, ema=momentum)
    embedder[0].data = theta_q
    for _ in range(steps):
        method.on_step_end(0.0)
    return next(method.key.parameters())


def acl_ssl(z1, z2, h1, h2, alpha, tau, m_g, reduction):
    return ACL(alpha, tau, m_g, reduction)(Rows(torch.cat([z1, z2]), two_views(z1), torch.cat([h1, h2])))


def acl_sup(logits, targets, feats, alpha, m_g, reduction):
    return ACL(alpha, margin_rad=m_g, reduction=reduction, main=F.cross_entropy)(Rows(logits, targets, feats))


def acl_angular(h, labels, m_g, reduction):
    return angular_pairs(h, labels, m_g, reduction)


def tolerance_indicator(z, labels):
    """The formula as printed; the product's tolerance is the conditional mean."""
    same, _ = geometry.pairs(labels)
    return geometry.tolerance(z, labels) * same.sum() / (len(z) * (len(z) - 1))


def add_hard(x, labels, lam, ordered=True):
    if ordered:
        return ADD(lam)(x, labels)
    cosine, upper = geometry.gram(x), torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    same, different = (mask & upper for mask in geometry.pairs(labels))
    return combine(lam, (1 - cosine)[same] ** 2, cosine[different] ** 2)


def combine(lam, *sets):
    terms = [term for values in sets for term in (values.mean(), values.std())]
    return sum(weight * term for weight, term in zip(lam, terms) if weight)


def add_hard_code_old(x, labels, lam):
    """What the paper's old code computes, which the product does not offer: moments of d, not of its square."""
    distance, (same, different) = 1 - geometry.gram(x), geometry.pairs(labels)
    d_p, d_n = distance[same], distance[different]
    value = sum(a * b for a, b in zip(lam, (d_p.mean() ** 2, d_p.std(), (1 - d_n.mean()) ** 2, d_n.std())))
    assert abs(value - ADD(lam)(x, labels)) > 1e-3
    return value


def add_soft(x, y, lam_mu, lam_sigma, label_metric="cosine"):
    return SoftADD(lam_mu, lam_sigma, label_metric)(x, y)


def add_soft_code(x, y, lam_mu):
    """What the paper's code computes, which the product does not offer: the zero diagonal counts, sigma is missing."""
    value = lam_mu * ((geometry.gram(x) - geometry.gram(y)) ** 2).fill_diagonal_(0).mean()
    assert abs(value - SoftADD(lam_mu)(x, y)) > 1e-3
    return value


def pair_stats(x, labels, a, b):
    mean, cv = geometry.pair_stats(x, labels, a, b)
    return {"mean": mean, "cv": cv}


def focal(logits, targets, gamma, alpha=None):
    return Focal(gamma, alpha)(logits, targets)


def opl(x, labels, gamma, weight=1.0, abs_mode="abs_of_mean"):
    return OPL(gamma, weight, abs_mode)(x, labels)


def margin_softmax(x, w, targets, margin_type, m, s, fallback="arcface"):
    loss = MarginSoftmax(w.shape[1], len(w), make_margin(margin_type, m, fallback), s)
    loss.weight = nn.Parameter(w)
    return loss(x, targets)


def clar(z1, z2, logits1, logits2, targets, tau, ce_weight=1.0, ce_reduction="sum_views"):
    mixture = CLAR(NTXent(tau), ce_weight, ce_reduction)
    rows = Rows(torch.cat([z1, z2]), two_views(z1), targets=targets.repeat(2), logits=torch.cat([logits1, logits2]))
    return mixture(rows)


def soft_cross_entropy(logits, soft):
    return F.cross_entropy(logits, soft)  # torch's own, as the product uses it


def bce_soft(logits, soft):
    return F.binary_cross_entropy_with_logits(logits, soft)


ADAPTERS = {
    "ntxent_nonsym": partial(ntxent, symmetric=False),
    "ntxent_sym": ntxent_sym,
    "bidirectional": bidirectional,
    "angular_prototypical": angular_prototypical,
    "supcon": supcon,
    "moco": moco,
    "moco_two_way": moco_two_way,
    "fifo": fifo,
    "ema": ema,
    "acl_ssl": acl_ssl,
    "acl_sup": acl_sup,
    "acl_angular": acl_angular,
    "uniformity": geometry.uniformity,
    "tolerance": geometry.tolerance,
    "tolerance_indicator": tolerance_indicator,
    "add_hard": add_hard,
    "add_hard_code_old": add_hard_code_old,
    "add_soft": add_soft,
    "add_soft_code": add_soft_code,
    "pair_stats": pair_stats,
    "focal": focal,
    "opl": opl,
    "margin_softmax": margin_softmax,
    "clar": clar,
    "soft_cross_entropy": soft_cross_entropy,
    "bce_soft": bce_soft,
    "cross_entropy": F.cross_entropy,
}
ARCCOS = ("acl_angular", "acl_ssl", "acl_sup")


def tensors(case, dtype):
    """Labels stay integers, everything else becomes `dtype`; the batches for a queue may differ in length."""

    def convert(name, value):
        if name == "batches":
            return [torch.tensor(batch, dtype=dtype) for batch in value]
        return torch.tensor(value, dtype=torch.int64 if "labels" in name or name == "targets" else dtype)

    return {name: convert(name, value) for name, value in case["inputs"].items()}


def mistakes(case, dtype):
    exact = 1e-8 if dtype == torch.float64 else 1e-4 if case["function"] in ARCCOS or "aam" in case["name"] else 2e-5
    return golden.mistakes(case, ADAPTERS[case["function"]], tensors(case, dtype), exact)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_golden_case(dtype):
    results = [mistakes(case, dtype) for case in CASES]
    assert [text for wrong in results for text in wrong] == []
    assert len(results) >= 59


def test_gradients_are_among_the_cases():
    assert sum("grad" in case for case in CASES) >= 10


def test_a_wrong_value_is_noticed():
    case = next(case for case in CASES if case["name"] == "ntxent_sym_rand_tau0.5")
    assert not mistakes(case, torch.float64)
    assert mistakes({**case, "expected": case["expected"] + 1e-7}, torch.float64)
    assert mistakes({**case, "grad": {"z1": [[0.0] * 5] * 4}}, torch.float64)
