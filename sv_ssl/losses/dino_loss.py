"""DINO: the student predicts the teacher's distribution over prototypes, and RDINO's terms against collapse.

What tells collapse is not the loss. Where the targets' entropy stays at log K and the KL divergence falls to 0, nothing
is decided (no sharpening); where the usage's perplexity falls to 1, one prototype takes all (no centring).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import gather, gather_plain
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.assignments import Logits, cross_entropy, row_blocks
from sv_ssl.losses.geometry import entropy, wide
from sv_ssl.losses.sinkhorn import sinkhorn
from sv_ssl.losses.vicreg import cov, var


class DINOLoss(nn.Module):
    """Compare each crop of the student with each other crop of the teacher: V logits (N, K), (G, N, K) -> ().

    https://arxiv.org/abs/2104.14294. The first G crops of the student are the teacher's: no crop predicts itself.
    Logits are cosines with the prototypes.
    - teacher_temperature: a number, or a function of the epochs done (a schedule).
    - centring: "centre" subtracts a slow mean of the teacher's logits, which `update` moves after each loss;
      "sinkhorn" lets all rows of a batch share the prototypes evenly, in `iterations` steps.

    >>> loss = DINOLoss(n_prototypes=4)
    >>> loss([torch.zeros(3, 4)] * 2, torch.zeros(2, 3, 4))  # log 4
    tensor(1.3863)
    >>> loss.update(torch.ones(2, 3, 4))
    >>> loss.centre
    tensor([0.1000, 0.1000, 0.1000, 0.1000])
    """

    centre: Tensor
    teacher_temperature: float

    def __init__(
        self,
        n_prototypes: int,
        student_temperature: float = 0.1,
        teacher_temperature: float | Callable[[float], float] = 0.04,
        centring: str = "centre",
        momentum: float = 0.9,
        iterations: int = 3,
    ):
        super().__init__()
        if centring not in ("centre", "sinkhorn"):
            raise InputError(f"centring is {centring!r}: choose centre or sinkhorn")
        check_number("n_prototypes", n_prototypes, at_least=1, whole=True)
        check_number("student_temperature", student_temperature, at_least=1e-6)
        if not callable(teacher_temperature):
            check_number("teacher_temperature", teacher_temperature, at_least=1e-6)
        check_number("momentum of the centre", momentum, at_least=0, at_most=1)
        self.student_temperature = student_temperature
        self.schedule = teacher_temperature
        self.centring = centring
        self.momentum = momentum
        self.iterations = iterations
        self.register_buffer("centre", torch.zeros(n_prototypes))
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Take the teacher's temperature for so many epochs, fractional."""
        self.teacher_temperature = self.schedule(progress) if callable(self.schedule) else self.schedule

    def forward(self, student: Iterable[Logits], teacher: Tensor) -> Tensor:
        return self.compare(student, self.targets(teacher))

    def compare(self, student: Iterable[Logits], targets: Tensor) -> Tensor:
        """Return the loss for targets that are made already, which `dino_stats` wants to see as well.

        Targets that are made before `update` keep the old centre; so the teacher's logits, which may be large, can go
        before the student's come.
        """
        return cross_entropy(student, targets, self.student_temperature)

    @torch.no_grad()
    def targets(self, teacher: Tensor) -> Tensor:
        """Turn the teacher's logits into distributions over the prototypes: (G, N, K) -> (G, N, K)."""
        self._check(teacher)
        rows = teacher.flatten(0, 1)
        if self.centring == "sinkhorn":
            return sinkhorn(rows, self.teacher_temperature, self.iterations).view(teacher.shape)
        probs = torch.empty(rows.shape, dtype=wide(rows[:0]).dtype, device=rows.device)
        for block in row_blocks(rows):
            probs[block] = ((wide(rows[block]) - self.centre) / self.teacher_temperature).softmax(1)
        return probs.view(teacher.shape)

    @torch.no_grad()
    def update(self, teacher: Tensor) -> None:
        """Move the centre towards the mean of the teacher's raw logits, (G, N, K) of each process: after the loss."""
        self._check(teacher)
        mean = gather_plain(teacher.mean((0, 1), dtype=self.centre.dtype)[None]).mean(0)
        self.centre.lerp_(mean, 1 - self.momentum)

    def _check(self, teacher: Tensor) -> None:
        if teacher.dim() != 3 or teacher.shape[2] != len(self.centre):
            raise InputError(
                f"the teacher's logits are {tuple(teacher.shape)}: wanted (crops, recordings, {len(self.centre)}), "
                "n_prototypes at last"
            )


@torch.no_grad()
def dino_stats(loss: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return what tells collapse, over all processes: (), (G, N, K) -> target_entropy, usage_perplexity and kl.

    The KL divergence is the loss without the targets' entropy, which the student cannot lower. Perplexity counts the
    prototypes in use: 1 to K.

    >>> {name: value.item() for name, value in dino_stats(torch.tensor(0.5), torch.eye(2)[None]).items()}
    {'target_entropy': 0.0, 'usage_perplexity': 2.0, 'kl': 0.5}
    """
    rows = targets.flatten(0, 1)
    mean = torch.stack([entropy(rows[block]).sum() for block in row_blocks(rows)]).sum() / len(rows)
    of_all, value = gather_plain(torch.stack([mean, loss.to(mean.dtype)])[None]).mean(0)
    perplexity = entropy(gather_plain(rows.mean(0)[None]).mean(0)).exp()
    return {"target_entropy": of_all, "usage_perplexity": perplexity, "kl": value - of_all}


def diversity(student: Tensor, teacher: Tensor, std_weight: float = 10.0, cov_weight: float = 1.0) -> Tensor:
    """Return RDINO's terms: spread and uncorrelated dimensions at the head's widest layer, (G, N, D) twice -> ().

    https://arxiv.org/abs/2211.04168. x and y are the means over the long crops of student and teacher:
    std_weight * (var(x) + var(y)) / 2 + cov_weight * (cov(x) + cov(y)). The teacher's terms have no gradient.

    >>> z = torch.tensor([[[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]]])
    >>> diversity(z, z).item()
    0.0
    """
    sides = [gather(wide(side).mean(0)) for side in (student, teacher.detach())]
    spread = torch.stack([var(side) for side in sides]).mean()
    return std_weight * spread + cov_weight * torch.stack([cov(side) for side in sides]).sum()
