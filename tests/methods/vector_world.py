"""A world of vectors in which methods learn within seconds: speakers, recordings, contents, mixed beyond recognition.

An utterance is speaker (16 numbers), recording (16, 1.2 times as strong) and content (8), mixed by a fixed random layer
to 64 numbers. A crop draws the content anew; an augmented one also keeps 85 % of the recording and adds noise. Trials
are of new speakers, across recordings.
"""

import numpy as np
import torch
from torch import nn

from sv_ssl.data.batch import Batch
from sv_ssl.methods import Facts
from sv_ssl.verification.metrics import eer

SPEAKERS, RECORDINGS, UTTERANCES, BATCH = 200, 4, 6, 128
N = SPEAKERS * RECORDINGS * UTTERANCES


class World:
    """The training rows and the test rows of a seed."""

    def __init__(self, seed=0):
        self.random = torch.Generator().manual_seed(seed)
        self.mix = self.draw(40, 64) / 40**0.5
        self.speakers = np.repeat(np.arange(SPEAKERS), RECORDINGS * UTTERANCES)
        self.recordings = np.repeat(np.arange(SPEAKERS * RECORDINGS), UTTERANCES)
        self.voice = self.draw(SPEAKERS, 16)[torch.from_numpy(self.speakers)]
        self.room = 1.2 * self.draw(SPEAKERS * RECORDINGS, 16)[torch.from_numpy(self.recordings)]
        people = torch.arange(100).repeat_interleave(RECORDINGS)
        self.test_people = people.numpy()
        self.test = self.heard(self.draw(100, 16)[people], 1.2 * self.draw(len(people), 16), augmented=False)

    def draw(self, *shape):
        return torch.randn(*shape, generator=self.random)

    def heard(self, voice, room, augmented=True):
        """Return what is heard of a content: (B, 16), (B, 16) -> (B, 64)."""
        if augmented:
            room = 0.85 * room + (1 - 0.85**2) ** 0.5 * 1.2 * self.draw(*room.shape)
        heard = torch.tanh(torch.cat([voice, room, 1.0 * self.draw(len(voice), 8)], dim=1) @ self.mix * 2)
        return heard + 0.1 * self.draw(*heard.shape) if augmented else heard

    def facts(self, epochs, seed=0):
        steps = N // BATCH
        return Facts(N, self.speakers, SPEAKERS, steps, epochs, seed, self.speakers, self.recordings)

    def batches(self, needs, n_short=4):
        """Yield an epoch's batches, with the crops that a method needs."""
        for rows in torch.randperm(N, generator=self.random).split(BATCH)[: N // BATCH]:
            voice, room = self.voice[rows], self.room[rows]
            crops = [self.heard(voice, room) for _ in range(needs.views)]
            short = [self.heard(voice, room) for _ in range(n_short)] if needs.short and n_short else []
            clean = [self.heard(voice, room, augmented=False) for _ in range(needs.clean)]
            yield Batch(
                torch.stack(crops) if crops else torch.empty(0, BATCH, 64),
                rows,
                torch.stack(short) if short else None,
                clean=torch.stack(clean) if clean else None,
            )


class Encoder(nn.Sequential):
    """Three layers, (B, 64) -> (B, 32)."""

    dim = 32

    def __init__(self):
        layers = [
            nn.Linear(64, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
        ]
        super().__init__(*layers, nn.Linear(128, 32))


def fit(make, epochs=12, seed=0, n_short=4, lr=2e-3, watch=None):
    """Train a method that `make(Encoder())` returns; return it, the EER of what it keeps, and a record an epoch."""
    torch.manual_seed(seed)
    world = World(seed)
    method = make(Encoder()).train()
    method.prepare(world.facts(epochs, seed))
    optimizer = torch.optim.Adam(method.parameter_groups(), lr)
    rates = [lr * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    records = []
    for epoch in range(1, epochs + 1):
        method.on_epoch_start(epoch)
        sums = {}
        for number, batch in enumerate(world.batches(method.needs, n_short)):
            progress = epoch - 1 + (number + 0.5) / (N // BATCH)
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * (1 + np.cos(np.pi * progress / epochs)) / 2
            method.on_step_start(progress)
            step = method(batch)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            method.on_step_end(progress)
            figures = watch(step) if watch and number % 6 == 0 else {}
            for name, value in {"loss": float(step.loss.detach()), **figures}.items():
                sums.setdefault(name, []).append(value)
        records.append(
            {**{name: float(np.mean(values)) for name, values in sums.items()}, **(method.on_epoch_end(epoch) or {})}
        )
    return method, error_rate(method.embedder_to_keep(), world), records


@torch.no_grad()
def error_rate(embedder, world):
    """Return the EER of trials of new speakers, between recordings."""
    z = nn.functional.normalize(embedder.eval()(world.test), dim=1)
    first, second = np.triu_indices(len(z), k=1)
    return eer((z @ z.T).numpy()[first, second], (world.test_people[first] == world.test_people[second]).astype(int))
