"""SimCLR is its loss on all views, by recording or by class, with short crops compared with long ones."""

from functools import partial

import pytest
import torch
from small_batches import Linear, batch, facts, waves
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses import ACL, CLAR, AngularPrototypical, InfoNCE, MarginSoftmax, NTXent, Penalised, Rows
from sv_ssl.losses.margin import additive
from sv_ssl.losses.negatives import clean_noisy
from sv_ssl.methods import SimCLR
from sv_ssl.methods.mixup import Mixup
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel, SpecAugment
from sv_ssl.models.heads import mlp
from sv_ssl.models.resnet import FastResNet34


@pytest.mark.parametrize("n_views", [2, 3])
def test_simclr_is_its_loss(n_views):
    torch.manual_seed(0)
    method, given = SimCLR(Linear(), NTXent(0.1, n_views=n_views)), batch(n_views)
    step = method(given)
    z = torch.cat([method.embedder(view) for view in given.views])
    assert torch.allclose(step.loss, NTXent(0.1, n_views=n_views)(z, given.rows.repeat(n_views)))
    assert step.z.shape == (4 * n_views, 8) and not step.z.requires_grad
    assert torch.equal(step.labels, given.rows.repeat(n_views))


@pytest.mark.parametrize("norm, together", [(True, True), (False, False)])
def test_clean_crops_are_the_last_views(norm, together):
    """Of the views' length they share the encoder's pass and its statistics with them."""
    torch.manual_seed(0)
    clean = waves(1, seed=1) if together else waves(1, seed=1).repeat(1, 1, 2)
    embedder = Linear(norm) if together else Halves()
    method = SimCLR(embedder, NTXent(0.1, n_views=3, negative_weights=partial(clean_noisy, weight=2.0)), clean_views=1)
    assert method.needs.clean == 1
    given = batch(clean=clean)
    step = method(given)
    if together:
        z = embedder(torch.cat([given.views, clean]).flatten(0, 1))
    else:
        z = torch.cat([embedder(given.views.flatten(0, 1)), embedder(clean[0])])
    expected = NTXent(0.1, n_views=3, negative_weights=partial(clean_noisy, weight=2.0))(z, given.rows.repeat(3))
    torch.testing.assert_close(step.loss, expected)
    assert torch.equal(step.labels, given.rows.repeat(3)) and len(step.z) == 12
    assert step.loss != SimCLR(embedder, NTXent(0.1))(given).loss  # which has no use for them


class Halves(Linear):
    """Embed waves of any number of 16 samples by their mean."""

    def forward(self, wave):
        return super().forward(wave.unflatten(1, (-1, 16)).mean(1))


def test_what_clean_crops_as_views_do_not_go_with():
    with pytest.raises(InputError, match="neither sampled positives nor mixup"):
        SimCLR(Linear(), NTXent(0.1), mixup=Mixup(), clean_views=1)
    with pytest.raises(InputError, match="clean_views is -1"):
        SimCLR(Linear(), NTXent(0.1), clean_views=-1)


def test_simclr_with_a_real_encoder_learns_to_tell_a_batch_apart():
    torch.manual_seed(0)
    method = SimCLR(Embedder(LogMel(40), FastResNet34(40, "small", dim=32)), NTXent(0.1), mlp(32, 32, 16))
    given = Batch(0.1 * torch.randn(1, 4, 8000).repeat(2, 1, 1), torch.arange(4))
    optimizer = torch.optim.Adam(method.parameter_groups(), 1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(method(given).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_loss_of_embeddings_and_heads_gets_both():
    method, given = SimCLR(Linear(), ACL(0.3), nn.Linear(8, 5)), batch()
    h = method.embedder(given.views.flatten(0, 1))
    assert method(given).loss == ACL(0.3)(Rows(method.head(h), given.rows.repeat(2), h))


def test_with_labels_by_speaker_rows_of_one_class_are_alike():
    torch.manual_seed(0)
    method, given = SimCLR(Linear(), NTXent(0.1), labels="speaker"), batch()
    method.prepare(facts([5, 2, 5, 7]))
    step = method(given)
    classes = torch.tensor([5, 2, 5, 7]).repeat(2)
    assert torch.equal(step.labels, classes)
    assert step.loss == NTXent(0.1)(method.embedder(given.views.flatten(0, 1)), classes)
    assert method.needs.labels == "all" and SimCLR(Linear(), NTXent(0.1)).needs.labels == "none"


def test_a_classifier_is_sized_for_the_classes_and_speeds_are_further_ones():
    method = SimCLR(Linear(), Penalised(MarginSoftmax(8)), labels="speaker")
    method.prepare(facts([0, 1, 1, 2], n_classes=6))
    assert method.loss.main.weight.shape == (6, 8) and method.needs.views == 1
    assert method(batch(1, speeds=torch.tensor([0, 1, 0, 1]))).labels.tolist() == [0, 4, 1, 5]


@pytest.mark.parametrize(
    "classes, text", [(None, "the training manifest has no classes"), ([0, -1, 2, -1], "2 of 4 have none")]
)
def test_missing_classes_are_refused_before_the_first_step(classes, text):
    with pytest.raises(InputError, match=text):
        SimCLR(Linear(), NTXent(0.1), labels="speaker").prepare(facts(classes))


def test_the_loss_follows_its_schedules():
    schedule = lambda progress: 1.0 / (1 + progress)  # noqa: E731
    losses = NTXent(schedule, partial(additive, m=schedule)), ACL(0.5, main=NTXent(schedule)), CLAR(NTXent(schedule))
    for loss in (*losses, Penalised(NTXent(schedule))):
        method = SimCLR(Linear(), loss)
        method.on_step_start(1.0)
        scheduled = next(part for part in loss.modules() if hasattr(part, "temperature"))
        assert scheduled.temperature == 0.5
    assert losses[0].margin.keywords == {"m": 0.5}


def test_short_crops_ask_the_long_ones_of_all_recordings():
    method, given = SimCLR(Linear(), NTXent(0.1)), batch(short=waves(3, seed=1))
    z, asked = (method.embedder(crops.flatten(0, 1)) for crops in (given.views, given.short))
    labels = given.rows
    wanted = method.loss(z, labels.repeat(2)) + method.loss.against(asked, labels.repeat(3), z, labels.repeat(2))
    found = method(given)
    assert method.needs.short
    assert torch.allclose(found.loss, wanted) and len(found.z) == 8  # what is watched are the long crops


def test_what_it_cannot_use_is_refused():
    method = SimCLR(Linear(), AngularPrototypical())
    assert not method.needs.short
    with pytest.raises(InputError, match="AngularPrototypical: pass --n_short 0"):
        method(batch(short=waves()))
    with pytest.raises(InputError, match="labels is 'both': choose utterance or speaker"):
        SimCLR(Linear(), NTXent(0.1), labels="both")
    with pytest.raises(InputError, match="InfoNCE compares with a queue"):
        SimCLR(Linear(), InfoNCE(0.1))


def test_masks_go_on_where_they_were_stopped():
    def made():
        torch.manual_seed(0)
        method = SimCLR(Embedder(LogMel(20, spec_augment=SpecAugment()), FastResNet34(20, "small", dim=8)), NTXent(0.1))
        method.prepare(facts(seed=7))
        return method.train()

    given = Batch(0.1 * torch.randn(2, 4, 4000, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    with torch.no_grad():
        whole, stopped, resumed = made(), made(), made()
        wanted = [whole.embedder.features(given.views[0]) for _ in range(3)]
        stopped.embedder.features(given.views[0])
        resumed.load_state_dict(stopped.state_dict())
        assert all(torch.equal(resumed.embedder.features(given.views[0]), one) for one in wanted[1:])
        assert not torch.equal(wanted[0], wanted[1])
