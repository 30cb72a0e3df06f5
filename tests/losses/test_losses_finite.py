"""Terms that other tests use at easy places: low temperatures, equal rows, one prototype, more of them than rows."""

import pytest
import torch

from sv_ssl.losses.dino_loss import diversity
from sv_ssl.losses.protonce import concentration, prototype_term
from sv_ssl.losses.sdpn_loss import fro_norm, me_max
from sv_ssl.losses.vicreg import cov, var

N, DIM = 4, 8
KINDS = {
    "random": lambda shape: torch.randn(shape, generator=torch.Generator().manual_seed(0)),
    "equal": torch.ones,
    "zeros": torch.zeros,
    "large": lambda shape: 1e4 * torch.randn(shape, generator=torch.Generator().manual_seed(0)),
}
TERMS = {
    "var": var,
    "cov": cov,
    "diversity": lambda z: diversity(z[None], z[None]),
    "fro_norm": fro_norm,
    "me_max": lambda z: me_max((z / 0.005).float().softmax(1)),
    "me_max of one": lambda z: me_max((z[:, :1] / 0.005).float().softmax(1)),
}


def check(compute, kind, dtype, shape=(N, DIM)):
    z = KINDS[kind](shape).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = compute(z)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and z.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TERMS)
def test_terms_of_a_batch(name, kind, dtype):
    check(TERMS[name], kind, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 64])
def test_the_prototype_term_and_its_temperatures(k, kind, dtype):
    centroids = torch.nn.functional.normalize(torch.randn(k, DIM, generator=torch.Generator().manual_seed(1)), dim=1)
    clusters = torch.arange(N) % k

    def compute(z):
        phi = concentration(z, centroids, clusters, temperature=0.005)
        assert phi.isfinite().all() and (phi > 0).all()
        return prototype_term(z, [centroids], clusters[None], [phi])

    check(compute, kind, dtype)
