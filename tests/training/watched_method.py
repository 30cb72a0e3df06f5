"""A method that the Brain's tests train: it writes down what is called."""

from torch import nn

from sv_ssl.methods.base import Method, Step

CALLS = []


class Watched(Method):
    """A method that writes down what is called, with a frozen copy of its embedder to keep."""

    def __init__(self, embedder):
        super().__init__()
        self.embedder = embedder
        self.head = nn.Linear(embedder.dim, 4)

    def prepare(self, facts):
        CALLS.append(("prepare", facts.n_rows, facts.steps, facts.epochs, facts.seed))

    def forward(self, batch):
        CALLS.append("forward")
        z = self.head(self.embedder(batch.views.flatten(0, 1)))
        loss = z.square().mean()
        return Step(loss, z.detach(), batch.rows.repeat(len(batch.views)), {"twice": 2 * loss.detach()})

    def on_epoch_start(self, epoch):
        CALLS.append(("epoch", epoch))

    def on_step_start(self, progress):
        CALLS.append(("start", progress))

    def on_step_end(self, progress):
        CALLS.append(("end", progress))

    def on_epoch_end(self, epoch):
        CALLS.append(("over", epoch))

    def parameter_groups(self):
        return [{"params": self.embedder.parameters()}, {"params": self.head.parameters(), "lr_scale": 0.0}]
