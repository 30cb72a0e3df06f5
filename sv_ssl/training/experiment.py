"""The engine: a recipe's command line to a trained model, judged, and a result. What is learnt from whom is a task.

Settings are read before anything begins: then processes and threads start, the data are read, systems without learning
are judged, the method is fitted, the model is judged and saved, the result is written and shown.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits

from sv_ssl.core import command, distributed, seeds
from sv_ssl.core.distributed import barrier, is_main
from sv_ssl.core.errors import InputError, number_fault
from sv_ssl.data.loader import loader
from sv_ssl.methods.base import Facts
from sv_ssl.models import folder as model
from sv_ssl.models import training_list
from sv_ssl.models.features import LogMel, SpecAugment
from sv_ssl.reporting import record
from sv_ssl.training import command_line, run_folder
from sv_ssl.training.brain import SSLBrain
from sv_ssl.training.command_line import Config
from sv_ssl.training.labelled_clips import ClipTask
from sv_ssl.training.settings import Settings
from sv_ssl.training.speakers import SpeakerTask
from sv_ssl.training.task import Task

RATE = "look at --peak_lr and the keys of lr"
TASKS: dict[str, type[Task]] = {"speakers": SpeakerTask, "clips": ClipTask}


class Outcome(NamedTuple):
    """What came of a run; `result` is empty where there was nothing to judge the model by."""

    task: Task
    config: Config
    result: dict[str, Any]


def main(recipe_file: str, about: str, argv: Sequence[str] | None = None, task: str = "speakers") -> int:
    """Run a recipe's command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    kind = TASKS[task]
    if {"-h", "--help"} & set(words):
        page = command_line.help_page
        return command.run(lambda: print(f"{about.strip()}\n\n{page(kind.settings_class, recipe_file, words)}"))
    return command.recipe(about, words, lambda words: run(kind, recipe_file, words))


def run(kind: type[Task], recipe_file: str, argv: Sequence[str]) -> None:
    """Do what a command line asks for; the same command again goes on where it was stopped."""
    config = command_line.read(kind.settings_class, recipe_file, argv)
    if config.print_only:
        print(config.resolved().rstrip())
        return
    outcome = perform(kind, config)
    if outcome is not None:
        write(outcome)


def perform(kind: type[Task], config: Config) -> Outcome | None:
    """Train and judge; of several processes the first one returns what came of it."""
    distributed.start(config.plain["device"])
    device = distributed.device(config.plain["device"])
    sources = kind.sources(config)
    seeds.seed_everything(config.plain["seed"])
    run_folder.check(config.final(sources))  # refuse before a YAML of another version is built
    settings = config.build(sources)
    check_needs(settings)
    check_rates(settings)
    with run_folder.at_work(Path(settings.output_folder)), computing_on(run_folder.threads(settings)):
        task = kind(settings, config)
        brain, before = train(task, config, sources, device)
        return judge(task, config, brain, before) if is_main() else None


# ------------------------------------------------------------------------------------------------------------- threads
@contextmanager
def computing_on(threads: int) -> Iterator[None]:
    """Let torch and numpy compute on so many threads, whatever OMP_NUM_THREADS says: sums depend on their number."""
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------------------ training
def train(task: Task, config: Config, sources: dict, device: str) -> tuple[SSLBrain, Any]:
    """Return the fitted Brain, and what was judged before."""
    settings = task.settings
    prepare_encoder(settings)
    views, batches = task.views_and_batches()
    views[0, 0]  # noises and rooms that cannot be listed are refused before anything is written
    classes, n_classes = task.classes()
    settings.method.prepare(
        Facts(
            len(views),
            classes,
            n_classes,
            len(batches),
            epochs=settings.epochs,
            seed=settings.seed,
            **task.known_of_rows(),
        )
    )
    run_folder.claim(config, Path(settings.output_folder), sources, task.identity(), torch.get_num_threads())
    before = task.baselines() if settings.baselines and is_main() else None
    barrier()
    train_loader = loader(views, batches, settings.num_workers, pin_memory=device != "cpu")
    return fit(SSLBrain(settings, device, train_loader, task.validator())), before


def check_needs(settings: Settings) -> None:
    """Raise InputError where the settings do not give what the method needs."""
    needs, name = settings.method.needs, type(settings.method).__name__
    if settings.n_views < needs.views:
        raise InputError(
            f"{name} compares {needs.views} views, --n_views is {settings.n_views}: pass --n_views {needs.views}"
        )
    if getattr(settings, "n_short", 0) and not needs.short:
        raise InputError(f"{name} has no use for short crops with this loss: pass --n_short 0")
    if (n_clean := getattr(settings, "n_clean", 0)) != needs.clean:
        raise InputError(f"{name} takes {needs.clean} clean crops, not {n_clean}: pass --n_clean {needs.clean}")
    if needs.partners:
        raise InputError(f"{name} needs {needs.partners} partners of an utterance, and the data have none to give")


def prepare_encoder(settings: Settings) -> None:
    """Do to the encoder what the settings say: masks, torch.compile, the weights of a model folder to start from."""
    if settings.spec_augment:
        if not isinstance(settings.embedder.features, LogMel):
            name = type(settings.embedder.features).__name__
            raise InputError(f"--spec_augment masks LogMel's features, not {name}'s")
        for part in settings.method.modules():
            if isinstance(part, LogMel):  # MoCo's slow encoder has one of its own
                part.spec_augment = SpecAugment()
    if settings.compiled:
        settings.embedder.compile_training()
    if settings.init_from:
        model.fill(settings.embedder, settings.init_from)
        training_list.read(settings.init_from)  # which goes into the new model's folder: refuse a damaged one now
        settings.method.weights_loaded()
    if getattr(settings, "freeze_encoder", False):
        freeze(settings)


def freeze(settings: Settings) -> None:
    """Leave the encoder as the model folder has it; what would train it has no meaning then."""
    if not settings.init_from:
        raise InputError("--freeze_encoder True keeps an encoder as it is: name its model folder with --init_from")
    if settings.spec_augment or settings.compiled:
        raise InputError("--spec_augment and --compiled are for an encoder that learns: leave out --freeze_encoder")
    settings.method.freeze_encoder()


def check_rates(settings: Settings) -> None:
    """Raise InputError where the schedule gives no learning rate for some epoch, or one below 0."""
    for epoch in range(settings.epochs):
        try:
            rate = settings.lr(epoch + 0.5)
            fault = number_fault(rate, at_least=0)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise InputError(f"the learning rate of epoch {epoch + 1} cannot be computed: {error}: {RATE}") from error
        if fault:
            raise InputError(f"the learning rate of epoch {epoch + 1} is {rate}: {fault}: {RATE}")


def fit(brain: SSLBrain) -> SSLBrain:
    """Fit a run's method, resuming what is there; the Brain comes back with its best weights loaded, or the last."""
    try:
        brain.fit_all()
    except KeyboardInterrupt:
        if is_main():
            print(f"\nstopped in epoch {brain.epoch}: the same command goes on from the last checkpoint")
        raise
    except torch._dynamo.exc.TorchDynamoException as error:
        raise InputError(
            f"torch.compile cannot compile the encoder here ({str(error).strip().splitlines()[0]}): leave "
            "--compiled out"
        ) from error
    return brain


# ---------------------------------------------------------------------------------------------------------- the result
def judge(task: Task, config: Config, brain: SSLBrain, before: Any) -> Outcome:
    """Judge the best weights once; save the model before, so that it is kept whatever the judging meets."""
    settings = task.settings
    folder = Path(settings.output_folder) / "model"
    embedder = settings.method.embedder_to_keep().eval()
    settings.method.eval()
    about = {**described(config, brain, embedder), **task.described()}
    start = training_list.read(settings.init_from) if settings.init_from else None
    trained_on = training_list.joined(task.trained_on(), start)
    model.save(folder, embedder, about, trained_on=trained_on)
    result, card = task.judge(embedder, before)
    if result:
        model.save(folder, embedder, about, card, trained_on)
    return Outcome(task, config, {**about, **result} if result else {})


def described(config: Config, brain: SSLBrain, embedder: torch.nn.Module) -> dict[str, Any]:
    """Return how a run was made and what it took."""
    settings = brain.settings
    lines = (Path(settings.output_folder) / "train_log.jsonl").read_text().splitlines()
    on_gpu = brain.device_type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "name": settings.name,
        "corpus": settings.corpus,
        "seed": settings.seed,
        **config.facts(),
        "streams": seeds.VERSION,
        "threads": torch.get_num_threads(),
        "epochs": settings.epochs,
        "best_epoch": brain.best_epoch,
        "valid_eer": brain.best_eer,
        "crops": brain.crops * settings.epochs,
        "parameters": sum(parameter.numel() for parameter in embedder.parameters()),
        "device": torch.cuda.get_device_name(brain.device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "minutes": round(brain.journal.seconds / 60, 2),
        "cpu_minutes": round(sum(json.loads(line)["cpu_seconds"] for line in lines) / 60, 1),
        "peak_gb": round(peak / 1e9, 2),
    }


def write(outcome: Outcome) -> None:
    """Write the result, and show its figures, what was written and what to do next."""
    task, config, result = outcome
    settings = task.settings
    folder = run_folder.results_folder(settings)
    for line in ["", *task.figures(result), ""]:
        print(line)
    print(f"wrote {settings.output_folder}/{', '.join(['model', 'watch.png', *task.files(result)])}")
    if result:
        print(f"result: {record.record(folder, result)}{task.tables(folder)}")
    for number, line in enumerate(task.next_steps()):
        print(f"{'      ' if number else 'next: '}{line}")
    if config.built_in:
        print(f"this was {task.built_in}")
