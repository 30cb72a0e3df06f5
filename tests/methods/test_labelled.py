"""Labelled recordings: what the loss sees of each kind of supervision, and what is refused."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small_batches import facts

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses import ACL, ADD, CLAR, MarginSoftmax, NTXent, Penalised, Rows
from sv_ssl.losses.margin import angular
from sv_ssl.methods import Labelled
from sv_ssl.methods.mixup import Mixup
from sv_ssl.models.audio_papers import ResNet18
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.heads import mlp


class Flat(torch.nn.Module):
    """(B, 6) -> (B, 4): an embedder that can be written down."""

    dim = 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(6, 4)

    def forward(self, wave):
        return self.linear(wave)


VIEWS = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
CLIPS = torch.arange(3)
BATCH = Batch(VIEWS, CLIPS)


def head(dim):
    return mlp(dim, 5, 3)


def prepared(loss, supervision, classes=None, n_classes=2, **arguments):
    method = Labelled(Flat(), loss, supervision, **arguments)
    method.prepare(facts(classes, n_classes, n_rows=3))
    return method.eval()


def test_without_labels_the_loss_sees_head_and_embedding():
    method = prepared(ACL(alpha=0.3), "none", head=head)
    h = method.embedder(VIEWS.flatten(0, 1))
    wanted = ACL(alpha=0.3)(Rows(method.head(h), CLIPS.repeat(2), h))
    step = method(BATCH)
    assert step.loss == wanted and torch.equal(step.z, h.detach()) and torch.equal(step.labels, CLIPS.repeat(2))
    assert wanted != ACL(alpha=0.3)(Rows(method.head(h), CLIPS.repeat(2)))
    assert not list(method.classifier.parameters())


def test_with_some_labels_it_is_clar():
    method = prepared(CLAR(NTXent(0.5)), "semi", [-1, -1, -1], head=head)
    z = method.head(method.embedder(VIEWS.flatten(0, 1)))
    contrast = NTXent(0.5)(z, CLIPS.repeat(2))
    assert method(BATCH).loss == contrast
    method.classes.prepare(facts([-1, 1, 0]))
    entropy = F.cross_entropy(method.classifier(z)[[1, 2, 4, 5]], torch.tensor([1, 0, 1, 0]))
    assert method(BATCH).loss.item() == pytest.approx((contrast + entropy).item(), rel=1e-6)
    assert torch.equal(method(BATCH).labels, CLIPS.repeat(2))


def test_a_margin_softmax_can_be_the_classifier_of_those_that_are_known():
    softmax = MarginSoftmax(4, margin=partial(angular, m=0.2), scale=10.0)
    method = prepared(CLAR(NTXent(0.5)), "semi", [1, -1, 0], classifier=softmax)
    z, clips, targets = method.embedder(VIEWS.flatten(0, 1)), CLIPS.repeat(2), torch.tensor([1, -1, 0]).repeat(2)
    want = NTXent(0.5)(z, clips) + softmax(z[targets >= 0], targets[targets >= 0])
    assert softmax.weight.shape == (2, 4)
    assert torch.allclose(method(BATCH).loss, want, atol=1e-6)
    assert torch.equal(method.logits(VIEWS[0]), 10 * softmax.cosines(z[:3]))  # no margin where nothing is known
    method.classes.prepare(facts([-1, -1, -1]))
    assert torch.equal(method(BATCH).loss, NTXent(0.5)(z, clips))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "margin", None)
        method.classes.prepare(facts([1, -1, 0]))
        assert method(BATCH).loss < want


def test_with_all_labels_it_is_a_classifier_with_penalties():
    method = prepared(Penalised(F.cross_entropy, [ADD()]), "full", [1, 0, 1])
    h, labels = method.embedder(VIEWS.flatten(0, 1)), torch.tensor([1, 0, 1]).repeat(2)
    wanted = F.cross_entropy(method.classifier(h), labels) + ADD()(h, labels)
    step = method(BATCH)
    assert step.loss == wanted and torch.equal(step.labels, labels)
    assert torch.equal(method.logits(VIEWS[0]), method.classifier(method.embedder(VIEWS[0])))
    assert method(Batch(VIEWS[:1], CLIPS)).loss.isfinite()  # one view is enough


def test_a_classifier_may_stand_on_a_head():
    method = prepared(Penalised(F.cross_entropy), "full", [1, 0, 1], n_classes=5, head=head)
    norm, _, matrix = method.classifier
    assert norm.num_features == 3 and matrix.weight.shape == (5, 3) and method(BATCH).loss.isfinite()


def test_supervised_acl_is_cross_entropy_at_alpha_1():
    method = prepared(ACL(1.0, main=F.cross_entropy), "full", [1, 0, 1])
    wanted = F.cross_entropy(method.logits(VIEWS.flatten(0, 1)), torch.tensor([1, 0, 1]).repeat(2))
    assert method(BATCH).loss.item() == pytest.approx(wanted.item())


def test_two_formats_see_the_same_signal():
    method = prepared(ACL(1.0), "none", other=Flat())
    torch.nn.init.zeros_(method.other.linear.weight)
    first = torch.cat([method.embedder(VIEWS[0]), method.other(VIEWS[0])])
    assert torch.equal(method(BATCH).z, first.detach())
    method = prepared(ACL(1.0, main=F.cross_entropy), "full", [1, 0, 1], other=Flat())
    assert method.needs.views == 2
    with pytest.raises(InputError, match="1 views of a clip cannot be compared: pass --n_views 2"):
        method(Batch(VIEWS[:1], CLIPS))


def test_its_state_is_read_into_another_one():
    method = prepared(CLAR(NTXent(0.5)), "semi", [-1, 1, 0], head=head)
    other = prepared(CLAR(NTXent(0.5)), "semi", [-1, 1, 0], head=head)
    torch.nn.init.ones_(method.classifier[-1].weight)
    assert method(BATCH).loss != other(BATCH).loss
    other.load_state_dict(method.state_dict())
    assert method(BATCH).loss == other(BATCH).loss


def test_schedules_and_classes_reach_the_loss_within():
    loss = CLAR(NTXent(lambda progress: 0.5 + progress))
    prepared(loss, "semi", [-1, 1, 0]).on_step_start(2.0)
    assert loss.contrastive.temperature == 2.5


@pytest.mark.parametrize(
    "arguments, text",
    [
        (dict(supervision="some"), "supervision is 'some': choose none, semi, full"),
        (dict(supervision="semi", mixup=Mixup()), "mixup mixes labels"),
        (dict(supervision="full", mixup=Mixup(), other=Flat()), "mixup is for one embedder"),
        (dict(supervision="full", classifier=MarginSoftmax(4)), "is the classifier of supervision semi"),
        (dict(supervision="semi"), "supervision semi wants the loss CLAR, not ACL"),
        (dict(supervision="none", other=Embedder(LogMel(20), ResNet18(20, size="tiny"))), "are 4 and 64 wide"),
    ],
)
def test_what_the_method_refuses(arguments, text):
    with pytest.raises(InputError, match=text):
        Labelled(Flat(), ACL(1.0), **arguments)


def test_batches_and_classes_that_it_cannot_use_are_refused():
    method = prepared(ACL(1.0), "none")
    with pytest.raises(InputError, match="1 views of a clip"):
        method(Batch(VIEWS[:1], CLIPS))
    with pytest.raises(InputError, match="--n_short 0"):
        method(Batch(VIEWS, CLIPS, short=VIEWS))
    with pytest.raises(InputError, match="the training manifest has no classes"):
        prepared(CLAR(NTXent(0.5)), "semi")
    with pytest.raises(InputError, match="1 of 3 have none"):
        prepared(Penalised(F.cross_entropy), "full", [0, -1, 1])
