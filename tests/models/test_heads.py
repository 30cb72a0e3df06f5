import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.models.heads import ROWS, Bottleneck, Prototypes, mlp


def test_layers_and_width():
    head = mlp(512, hidden=2048, out=256, hidden_layers=2)
    kinds = [type(layer) for layer in head]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert head(torch.randn(3, 512)).shape == (3, 256)


@pytest.mark.parametrize("frozen", [0, 1])
def test_prototypes_compare_like_unit_rows_whatever_their_length(frozen):
    prototypes = Prototypes(8, 2 * ROWS + 3, frozen).double()
    with torch.no_grad():
        prototypes.weight.mul_(torch.rand(prototypes.count, 1) + 0.5)
    z = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    wanted = F.normalize(z, dim=-1) @ F.normalize(prototypes.weight, dim=1).mT
    torch.testing.assert_close(prototypes(z), wanted, rtol=0, atol=1e-12)
    upstream = torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad(out, [z, prototypes.weight], upstream) for out in (prototypes(z), wanted))
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(ours[1], (1 - frozen) * theirs[1], rtol=0, atol=1e-10)


def test_prototypes_take_one_row_and_answer_in_float32_under_autocast():
    prototypes, z = Prototypes(8, 5), torch.randn(8, requires_grad=True)
    assert prototypes(z).shape == (5,)
    with torch.autocast("cpu", torch.bfloat16):
        cosines = prototypes(z[None].expand(3, -1))
    cosines.sum().backward()
    assert cosines.dtype == torch.float32
    assert torch.isfinite(prototypes.weight.grad).all() and torch.isfinite(z.grad).all()


def test_no_head_hands_embeddings_on():
    head, h = Bottleneck(8, hidden=0, out=8), torch.randn(3, 8)
    assert head(h) is h and head.wide(h) is h and head.dim == 8 and not list(head.parameters())
    with pytest.raises(InputError, match="--bottleneck 8"):
        Bottleneck(8, hidden=0, out=4)
