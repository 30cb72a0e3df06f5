"""DINO: pairs of crops as loops, the gradient, the centre, collapse as the statistics tell it, memory, odd inputs."""

from functools import partial

import pytest
import torch
from support.memory import peak
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses import DINOLoss, assignments
from sv_ssl.losses.dino_loss import dino_stats, diversity
from sv_ssl.training.schedules import linear


def logits(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_loops(student, teacher, tau_s, tau_t):
    costs = [
        -(q.div(tau_t).softmax(1) * p.div(tau_s).log_softmax(1)).sum(1).mean()
        for g, q in enumerate(teacher)
        for v, p in enumerate(student)
        if v != g
    ]
    return torch.stack(costs).mean()


@pytest.mark.parametrize("v, g", [(2, 2), (6, 2), (3, 1), (5, 3)])
def test_value_and_gradient(monkeypatch, v, g):
    monkeypatch.setattr(assignments, "ELEMENTS", 14)  # two rows at once
    student, teacher = logits(v, 5, 7).requires_grad_(), logits(g, 5, 7, seed=1)
    loss = DINOLoss(7, 0.5, 0.25).double()
    torch.testing.assert_close(loss(student, teacher), by_loops(student, teacher, 0.5, 0.25))
    assert gradcheck(lambda s: loss(s, teacher), student)


def test_the_student_may_come_a_view_at_a_time():
    student, teacher = logits(4, 5, 7), logits(2, 5, 7, seed=1)
    loss = DINOLoss(7)
    assert loss((view for view in student), teacher) == loss(list(student), teacher) == loss(student, teacher)


def test_the_teacher_gets_no_gradient():
    teacher = logits(2, 5, 7).requires_grad_()
    loss = DINOLoss(7)(logits(3, 5, 7, seed=1).requires_grad_(), teacher)
    assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None,)


def test_the_centre_is_a_slow_mean_and_moves_the_targets():
    loss = DINOLoss(3, momentum=0.5).double()
    loss.update(torch.tensor([[[1.0, 0.0, 0.0]], [[3.0, 0.0, 0.0]]], dtype=torch.float64))
    assert loss.centre.tolist() == [1.0, 0.0, 0.0]
    assert loss.targets(torch.tensor([[[1.0, 0.0, 0.0]]])).flatten().tolist() == pytest.approx([1 / 3] * 3)
    assert "centre" in loss.state_dict()


def test_the_temperature_follows_a_schedule():
    loss = DINOLoss(4, teacher_temperature=partial(linear, total=29, start=0.04, end=0.07))
    assert loss.teacher_temperature == 0.04
    loss.set_progress(29.0)
    assert loss.teacher_temperature == pytest.approx(0.07)


def test_statistics_tell_both_kinds_of_collapse():
    k, student = 64, [torch.zeros(32, 64)] * 2
    varied = torch.eye(k)[torch.arange(64).view(2, 32)]
    names = ("target_entropy", "usage_perplexity", "kl")
    found = {}
    for name, teacher in {"varied": varied, "uniform": varied * 0, "one": varied[:1, :1].expand(2, 32, k)}.items():
        loss = DINOLoss(k)
        targets = loss.targets(teacher)
        stats = dino_stats(loss.compare(student, targets), targets)
        found[name] = [round(stats[key].item(), 2) for key in names]
    assert found == {"varied": [0.0, 64.0, 4.16], "uniform": [4.16, 64.0, 0.0], "one": [0.0, 1.0, 4.16]}


@pytest.mark.parametrize("centring", ["centre", "sinkhorn"])
@pytest.mark.parametrize("k", [1, 4, 64])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite(centring, k, size, dtype):
    student = (size * logits(3, 4, k)).to(dtype).requires_grad_()
    loss = DINOLoss(k, 0.005, 0.005, centring)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = loss(student, (size * logits(2, 4, k, seed=1)).to(dtype))
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and student.grad.isfinite().all()


def test_memory_is_that_of_gradients_targets_and_one_view(monkeypatch):
    monkeypatch.setattr(assignments, "ELEMENTS", 2**14)
    student, teacher = logits(6, 8, 2**14, dtype=torch.float32), logits(2, 8, 2**14, dtype=torch.float32)
    views, loss = [view.clone().requires_grad_() for view in student], DINOLoss(2**14)
    assert peak(lambda: loss(views, teacher)) <= 0.5 * student.nbytes
    assert peak(lambda: loss(views, teacher).backward()) <= 1.5 * student.nbytes  # which keeps all gradients


def test_logits_that_a_function_makes_are_never_all_in_memory(monkeypatch):
    """Student, teacher and their gradient: less than one and a half times the logits of all crops of the student."""
    monkeypatch.setattr(assignments, "ELEMENTS", 2**14)
    z, z_of_teacher = torch.randn(6, 16, 8), torch.randn(2, 16, 8)
    prototypes, loss = torch.randn(2**13, 8, requires_grad=True), DINOLoss(2**13)
    makers = [lambda crop=crop: crop @ prototypes.T for crop in z]

    def step():
        with torch.no_grad():
            targets = loss.targets(z_of_teacher @ prototypes.T)
        loss.compare(makers, targets).backward()

    assert peak(step) <= 1.2 * 6 * 16 * 2**13 * 4
    targets = loss.targets(logits(2, 16, 2**13))
    one = torch.autograd.grad(loss.compare(makers, targets), prototypes)
    other = torch.autograd.grad(loss.compare(list(z @ prototypes.T), targets), prototypes)
    torch.testing.assert_close(one, other)


def test_diversity_has_no_gradient_of_the_teacher():
    student, teacher = logits(2, 6, 4).requires_grad_(), logits(2, 6, 4, seed=1).requires_grad_()
    assert gradcheck(lambda s: diversity(s, teacher.detach()), student)
    assert torch.autograd.grad(diversity(student, teacher), teacher, allow_unused=True) == (None,)


def test_diversity_of_equal_rows_has_a_finite_gradient():
    student = torch.ones(2, 4, 8, requires_grad=True)
    diversity(student, torch.ones(2, 4, 8)).backward()
    assert student.grad.isfinite().all()


def test_what_it_refuses():
    with pytest.raises(InputError, match="centring is 'center': choose centre or sinkhorn"):
        DINOLoss(4, centring="center")
    with pytest.raises(InputError, match="teacher_temperature"):
        DINOLoss(4, teacher_temperature=0.0)
    with pytest.raises(InputError, match=r"teacher's logits are \(2, 5, 7\): wanted \(crops, recordings, 4\)"):
        DINOLoss(4)(logits(2, 5, 7), logits(2, 5, 7))
    with pytest.raises(InputError, match=r"student's logits are \(4, 7\) and the targets \(5, 7\)"):
        DINOLoss(7)(logits(2, 4, 7), logits(2, 5, 7))
    with pytest.raises(InputError, match="only crop"):
        DINOLoss(7)(logits(1, 5, 7), logits(1, 5, 7))
