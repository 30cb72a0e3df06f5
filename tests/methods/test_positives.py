"""SSPS: which positives are sampled, that they are constants of other recordings, and that a run goes on as it was."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, facts

from sv_ssl.core.errors import InputError
from sv_ssl.losses import ACL, NTXent
from sv_ssl.methods import SimCLR
from sv_ssl.methods.base import Facts
from sv_ssl.methods.mixup import Mixup
from sv_ssl.methods.positives import Positives
from sv_ssl.training import watch

CASES = json.loads((Path(__file__).parents[1] / "golden" / "ssl.json").read_text())["cases"]
N = 24


def cases(function):
    return [pytest.param(case, id=case["name"]) for case in CASES if case["function"] == function]


def sampler(assignments, centroids, queue_rows, **options):
    """Positives with a given clustering and queue."""
    positives = Positives(len(centroids), queue_size=len(queue_rows), **options)
    positives.prepare(Facts(len(assignments), None, 0, 1, 1, 0), len(centroids[0]), 2)
    positives.clusters.assignments[0] = torch.tensor(assignments)
    positives.clusters.centroids_0 = F.normalize(torch.tensor(centroids, dtype=torch.float64), dim=1)
    positives.queue.labels = torch.tensor(queue_rows)
    return positives


@pytest.mark.parametrize("case", cases("ssps_sample"))
def test_golden_samples(case):
    inputs, params = case["inputs"], case["params"]
    positives = sampler(
        inputs["assignments"],
        inputs["centroids"],
        inputs["queue_indices"],
        near=params["m"],
        skip_empty=params.get("skip_empty", False),
    )
    draws = torch.tensor(inputs["draws"], dtype=torch.float64)
    assert positives.sample(torch.tensor(inputs["indices"]), draws).tolist() == case["expected"]


@pytest.mark.parametrize("case", cases("ssps_candidates"))
def test_golden_candidates(case):
    """Whatever is drawn, each candidate comes and nothing else does; where a cluster has none, -1."""
    inputs, expected = case["inputs"], case["expected"]
    positives = sampler(inputs["assignments"], inputs["centroids"], inputs["queue_indices"], near=case["params"]["m"])
    grid = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    draws = torch.cartesian_prod(grid, grid)
    places = positives.sample(torch.full((len(draws),), inputs["index"]), draws)
    clusters = (draws[:, 0] * max(1, len(expected["clusters"]))).long()
    for number, legal in enumerate(expected["positions"] or [[]]):
        assert set(places[clusters == number].tolist()) == set(legal or [-1])


@pytest.mark.parametrize("case", cases("ssps_ntxent"))
def test_golden_loss_and_gradient(case):
    inputs = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["inputs"].items()}
    z = torch.cat([inputs["z1"], inputs["z2"]]).requires_grad_()
    positives = Positives(2, near=0, queue_size=len(inputs["queue_z"]))
    positives.prepare(Facts(len(inputs["z1"]), None, 0, 1, 1, 0), 3, z.shape[1])
    positives.start_epoch(2)
    positives.queue.rows = inputs["queue_z"][None]
    positives.sample = lambda rows, draws: inputs["places"].long()
    rows = torch.arange(len(inputs["z1"]))
    first, second = z.chunk(2)
    sampled, _ = positives.eval().replace(second[None], rows)
    loss = NTXent(case["params"]["tau"])(torch.cat([first, sampled[0]]), rows.repeat(2))
    assert loss.item() == pytest.approx(case["expected"], abs=1e-8)
    loss.backward()
    for name, gradient in zip(("z1", "z2"), z.grad.chunk(2)):
        if name in case.get("grad", {}):
            torch.testing.assert_close(
                gradient, torch.tensor(case["grad"][name], dtype=torch.float64), rtol=0, atol=1e-6
            )
    assert not z.grad.chunk(2)[1][inputs["places"] >= 0].any()


def method(start=1, **options):
    torch.manual_seed(0)
    positives = Positives(4, start=start, **{"queue_size": 16, **options})
    made = SimCLR(Linear(norm=True), NTXent(0.2), positives=positives).train()
    made.prepare(facts(n_rows=N))
    return made, torch.optim.SGD(made.parameter_groups(), 0.1)


def batches(epoch):
    """Three batches of eight rows, in another order each epoch."""
    order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
    for number, rows in enumerate(order.split(8)):
        crops = batch(size=8, seed=10 * epoch + number, clean=torch.randn(1, 8, 16))
        yield crops._replace(rows=rows, clean=crops.views[:1] * 1.5)


def train(made, optimizer, epochs, losses=None, stop=None):
    """Train whole epochs; `stop` is (epoch, step) after which nothing more is done."""
    losses = [] if losses is None else losses
    for epoch in epochs:
        made.on_epoch_start(epoch)
        for number, crops in enumerate(batches(epoch)):
            step = made(crops)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            made.on_step_end(epoch)
            losses.append(step.loss.item())
            if stop == (epoch, number):
                return losses
        made.on_epoch_end(epoch)
    return losses


def test_before_the_start_it_is_plain_simclr_bit_for_bit():
    made, optimizer = method(start=2)
    torch.manual_seed(0)
    plain = SimCLR(Linear(norm=True), NTXent(0.2)).train()
    losses = train(made, optimizer, (1, 2, 3))
    expected = train(plain, torch.optim.SGD(plain.parameter_groups(), 0.1), (1, 2, 3))
    assert losses[:6] == expected[:6] and losses[6:] != expected[6:]


def test_nothing_is_looked_at_before_it_is_needed():
    made, optimizer = method(start=3)
    train(made, optimizer, (1, 2))
    assert not made.positives.clusters.written.any()
    train(made, optimizer, (3,))
    assert (made.positives.clusters.written == 3).all() and (made.positives.clusters.assignments >= 0).all()


def test_a_reference_is_of_the_clean_crop_by_an_encoder_at_rest():
    made, _ = method(start=1)
    made.on_epoch_start(1)
    [crops, *_] = batches(1)
    before = {name: value.clone() for name, value in made.embedder.state_dict().items()}
    made.positives.look(made.embedder, crops)
    after = made.embedder.state_dict()
    assert all(after[name].equal(value) for name, value in before.items()) and made.embedder.training
    rows, kept = made.positives.clusters.waiting[0]
    assert rows.equal(crops.rows)
    torch.testing.assert_close(kept, F.normalize(made.embedder.eval()(crops.clean[0]), dim=1))


def test_never_the_own_utterance():
    """10^5 draws, with clusters and queues that hold the row's own utterance often."""
    generator = torch.Generator().manual_seed(0)
    for near, codebook in ((0, "kmeans"), (1, "online")):
        positives = Positives(3, near=near, queue_size=64, codebook=codebook)
        positives.prepare(facts(n_rows=8), 4, 4)
        positives.clusters.assignments[0] = torch.arange(8) % 3
        for _ in range(100):
            positives.queue.labels = torch.randint(-1, 8, (64,), generator=generator)
            rows = torch.randint(8, (500,), generator=generator)
            places = positives.sample(rows, torch.rand(500, 2, dtype=torch.float64, generator=generator))
            sampled = positives.queue.labels[places]
            assert (sampled[places >= 0] != rows[places >= 0]).all() and (sampled[places >= 0] >= 0).all()
            assert (places >= 0).any()


@pytest.mark.parametrize("codebook", ["kmeans", "online"])
def test_a_resumed_run_ends_bit_equal(codebook):
    whole, optimizer = method(codebook=codebook)
    losses = train(whole, optimizer, (1, 2, 3))
    first, optimizer = method(codebook=codebook)
    begun = train(first, optimizer, (1, 2), stop=(2, 0))
    second, other = method(codebook=codebook)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(optimizer.state_dict())
    second.on_epoch_start(2)
    rest = []
    for crops in list(batches(2))[1:]:
        step = second(crops)
        other.zero_grad()
        step.loss.backward()
        other.step()
        second.on_step_end(2)
        rest.append(step.loss.item())
    second.on_epoch_end(2)
    train(second, other, (3,), rest)
    assert begun + rest == losses
    expected, reached = whole.state_dict(), second.state_dict()
    assert all(torch.equal(expected[name], reached[name]) for name in expected if torch.is_tensor(expected[name]))


def test_the_queue_keeps_true_positives_never_sampled_ones():
    made, optimizer = method(start=1, near=0)
    train(made, optimizer, (1,))
    made.on_epoch_start(2)
    [crops, *_] = batches(2)
    step = made(crops)
    made.on_step_end(2)
    behind = made.positives.queue.rows[0, 8:16]  # the 24 rows of the first epoch went round once
    assert behind.equal(step.z.chunk(2)[1])
    assert set(step.log) == {"coverage", "age"} and step.log["coverage"] > 0


def test_the_age_is_that_of_the_sampled_rows():
    made, optimizer = method(start=1, queue_size=20)
    train(made, optimizer, (1,))
    made.on_epoch_start(2)
    positives = made.positives
    rows = torch.arange(8)
    places = torch.tensor([3, 2, 4, -1, 12, 11, 4, 3])  # the next to be written is 4, of batches of 8: the oldest row
    assert positives.queue.position == 4
    log = positives._figures(rows, places, places >= 0)
    assert log["age"].item() == pytest.approx((1 + 1 + 3 + 2 + 2 + 3 + 1) / 7)  # 3 and 2 are of the last step


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("codebook", ["kmeans", "online"])
def test_the_first_epoch_has_no_clusters_and_raises_no_alarm(start, codebook):
    made, optimizer = method(start=start, near=0, skip_empty=True, codebook=codebook)
    for epoch in (1, 2):
        made.on_epoch_start(epoch)
        logs = []
        for crops in batches(epoch):
            logs.append(made(crops).log)
            made.on_step_end(epoch)
        figures = made.on_epoch_end(epoch)
        assert watch.alarms({name: float(value) for name, value in {**logs[-1], **figures}.items()}) == []
        assert all(("coverage" in log) == (epoch == 2) for log in logs) and figures["clustered"] == 1


def test_fewer_rows_than_clusters_raise_the_alarm():
    made, _ = method(start=1)
    made.on_epoch_start(1)
    [crops, *_] = batches(1)
    made(crops._replace(views=crops.views[:, :3], rows=crops.rows[:3], clean=crops.clean[:, :3]))
    made.on_step_end(1)
    [alarm] = watch.alarms(made.on_epoch_end(1))
    assert "lower the number of clusters" in alarm
    assert (made.positives.clusters.assignments == -1).all()


def test_known_speakers_are_measured_and_never_used():
    made, optimizer = method()
    told = facts(n_rows=N)._replace(speakers=torch.arange(N).numpy() // 4, recordings=torch.arange(N).numpy() // 2)
    other, optimizer_2 = method()
    other.prepare(told)
    assert train(made, optimizer, (1, 2)) == train(other, optimizer_2, (1, 2))
    other.on_epoch_start(3)
    log = other(next(batches(3))).log
    assert (
        set(log) == {"coverage", "age", "same_speaker", "same_recording"}
        and log["same_speaker"] >= log["same_recording"]
    )
    other.on_step_end(3)
    known = {"speaker_purity", "speaker_nmi", "recording_purity", "recording_nmi"}
    assert set(other.on_epoch_end(2)) == {"clustered"} | known


def test_rows_that_an_epoch_left_out_have_no_cluster():
    made, optimizer = method()
    made.on_epoch_start(1)
    for crops in list(batches(1))[:2]:
        made(crops)
        made.on_step_end(1)
    made.on_epoch_end(1)
    seen = torch.cat([crops.rows for crops in list(batches(1))[:2]])
    assert (made.positives.clusters.of(seen) >= 0).all() and (made.positives.clusters.assignments >= 0).sum() == 16
    missed = list(batches(1))[2].rows
    assert (made.positives.sample(missed, torch.rand(8, 2, dtype=torch.float64)) == -1).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"codebook": "both"}, "choose kmeans or online"),
        ({"near": 4}, "near is 4, of 4 clusters"),
        ({"near": -1}, "near of the positives"),
        ({"queue_size": 0}, "the size of the queue is 0"),
        ({"start": 0.5}, "start of the positives"),
        ({"momentum": 2.0, "codebook": "online"}, "weight of the old centroids"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Positives(4, **options).prepare(facts(n_rows=N), 4, 4)


def test_positives_need_two_views_and_enough_utterances():
    with pytest.raises(InputError, match="4 clusters cannot be made of 3 training utterances"):
        Positives(4).prepare(facts(n_rows=3), 2, 2)
    with pytest.raises(InputError, match="--labels utterance"):
        SimCLR(Linear(), NTXent(0.2), labels="speaker", positives=Positives(4))
    for options in ({"loss": ACL(0.5)}, {"loss": NTXent(0.2), "mixup": Mixup()}):
        with pytest.raises(InputError, match="take the place of rows of z alone: leave mixup out"):
            SimCLR(Linear(), positives=Positives(4), **options)
    made, _ = method()
    with pytest.raises(InputError, match="3 came: --n_views 2"):
        made(batch(3, 8, clean=torch.randn(1, 8, 16)))
