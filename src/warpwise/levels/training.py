"""Training of a network on its own: level 1 alone in the loop, on one device or in several processes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from warpwise import __version__
from warpwise.data.batches import Sampler
from warpwise.data.prepared import Prepared, own_pairs, prepare
from warpwise.data.volumes import Store
from warpwise.errors import InputError, RunError
from warpwise.events import OnEvent, ignore, note
from warpwise.io.run_folder import appearing, claim_folder, locked
from warpwise.levels import checkpoint, loop
from warpwise.levels.lambdas import NAME as TUNING
from warpwise.levels.lambdas import Lambdas
from warpwise.levels.settings import TrainingSettings, yaml_of
from warpwise.levels.tuning import Tuning
from warpwise.levels.tuning_settings import PART
from warpwise.levels.validation import Judged, judge, judge_synthetic
from warpwise.levels.weights import Weights, everything
from warpwise.networks.base import initialise
from warpwise.networks.model import CARD, Model, ModelCard, adopt, write_model
from warpwise.objective import Objective
from warpwise.ops.runtime import get_threads, set_threads
from warpwise.similarity.base import Similarity
from warpwise.similarity.label import Segmentation
from warpwise.terms.term import Term

CONFIG = "config.yaml"
TUNED = "tuned.yaml"
UPPER = "registration"
EVERY = 1_000_000  # labels, in each step
SYNTHETIC_PAIRS = 8  # pairs to validate on where pairs are made


@dataclass(frozen=True)
class Run:
    """Where and how a training runs.

    Attributes:
        folder: config.yaml, history.jsonl, best/ and last/ (models), last/state.safetensors, tensorboard/.
        cache: decoded images and linear transforms; inside the folder where none is given.
        resume: go on from last/.
        device: auto, cpu or cuda; processes: that train side by side.
        on_event: told of notes, steps, validations; must be picklable with several processes.
    """

    folder: Path
    cache: Path | None = None
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    processes: int = 1
    on_event: OnEvent = ignore


def train(settings: TrainingSettings, run: Run) -> None:
    """Train a network; the folder then holds its best and last weights.

    On a CPU, a run that was killed and resumed ends with the same bits as one that was not.

    Raises:
        InputError: the settings, the data or the folder cannot be used.
        RunError: the loss stayed without a finite value.
    """
    Objective.of(settings.objective)
    if settings.registration is not None:
        Objective.of(settings.registration.objective)
    if (settings.registration is not None or settings.tuning is not None) and run.processes > 1:
        raise InputError("Levels that take turns learn in one process.", hint="Leave --processes out.")
    accelerator = device_of(run.device)
    if run.resume:
        if not checkpoint.exists(run.folder / loop.LAST):
            raise InputError(f"{run.folder}: there is nothing to resume (no {loop.LAST}/{checkpoint.STATE}).")
    else:
        claim_folder(run.folder, [CONFIG, loop.LAST, "best"], overwrite=run.overwrite)
    with locked(run.folder):
        if not run.resume:
            begin(settings, run.folder)
        many = run.processes > 1
        strategy = "ddp_spawn" if many else "auto"
        if settings.precision == "bf16-mixed" and accelerator == "cpu" and not knows_bfloat16():
            settings = settings.replace(precision="32-true")
            run.on_event(
                note("This CPU has no bfloat16 instructions, and is slower where they are emulated: float32 it is.")
            )
        fabric = Fabric(accelerator=accelerator, devices=run.processes, strategy=strategy, precision=settings.precision)
        try:
            # Bound, not passed: Fabric would copy the arguments field by field, which frozen ones refuse.
            fabric.launch(partial(work, settings=settings, run=run))
        except ProcessRaisedException as error:
            last = str(error).strip().splitlines()[-1]
            raise RunError(f"A training process failed: {last}", hint="Train with one process to see where.") from error


def device_of(name: str) -> str:
    """What Fabric calls it.

    Raises:
        InputError: there is no GPU though one was asked for.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("No CUDA device was found.", hint="Use --device cpu or auto.")
    return "cuda" if available and name != "cpu" else "cpu"


def knows_bfloat16() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 itself (AVX-512 BF16, AMX; Arm's extension)."""
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch cannot tell
        return True
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def begin(settings: TrainingSettings, folder: Path) -> None:
    """A fresh run: its settings, and nothing left of one before it."""
    loop.forget(folder)
    with appearing(folder) as scratch:
        (scratch / CONFIG).write_text(yaml_of(settings), encoding="utf-8")


def work(fabric: Fabric, settings: TrainingSettings, run: Run) -> None:
    """What each process does."""
    if run.processes > 1:
        share = max(1, get_threads() // run.processes)
        set_threads(share)
        torch.set_num_threads(share)
    leads = fabric.is_global_zero
    tell = run.on_event if leads else ignore
    # The first process fills the cache, the others read it.
    ready = data_of(settings, run, tell) if leads else None
    fabric.barrier()
    ready = ready or data_of(settings, run, tell)
    if settings.tuning is None:
        levels: list[Weights | Tuning] = [*levels_of(fabric, settings, ready, run.folder)]
    else:
        asks = any(term.row() in ("dice", "labels", "segmentation") for term in settings.tuning.outer.values())
        own = own_pairs(settings.data, store_of(run), ready, PART, labelled=asks, seed=settings.seed + 1)
        levels = tuned_levels(fabric, settings, ready, run.folder, own)
    schedule, alone = schedule_of(settings, every_of(settings)), run.processes == 1
    loop.run(levels, schedule, run.folder, resume=run.resume, leads=leads, patient=alone, on_event=tell)
    for word in (word for level in levels if isinstance(level, Tuning) for word in level.warnings()):
        tell(note(word))
    fabric.barrier()


def data_of(settings: TrainingSettings, run: Run, tell: OnEvent) -> Prepared:
    """Pairs to learn from and to validate on.

    Raises:
        InputError: the dataset does not fit the settings.
    """
    every = any(isinstance(term, Segmentation) for term in settings.objective.values())
    return prepare(
        settings.data.replace(labels_at_once=EVERY) if every else settings.data,  # a channel is one structure for good
        store_of(run),
        synthetic=settings.synthetic,
        augmentation=settings.augmentation,
        most=settings.validation_pairs,
        seed=settings.seed,
        tell=tell,
    )


def store_of(run: Run) -> Store:
    """Where decoded images and linear transforms are kept."""
    return Store(run.cache or run.folder / "cache")


def schedule_of(settings: TrainingSettings, every: Mapping[str, int] | None = None) -> loop.Schedule:
    """When levels step; those that are named, at every so-manieth step."""
    return loop.Schedule(
        steps=settings.steps,
        every=every or {},
        validate_every=settings.validate_every,
        save_every_s=settings.save_every_s,
    )


def every_of(settings: TrainingSettings) -> dict[str, int]:
    """Which levels do not move at each step."""
    above, tuning = settings.registration, settings.tuning
    every = {} if above is None or above.joint else {UPPER: above.every}
    return every if tuning is None else {**every, TUNING: tuning.every}


def levels_of(fabric: Fabric, settings: TrainingSettings, ready: Prepared, folder: Path) -> list[Weights]:
    """The weights, or those of features and of their registration apart, which take turns.

    The lower level owns encoder and decoder: it asks how likely the images are, through a registration whose weights are
    constants to it. The upper one owns what registers: it asks how well the features, which are constants to it, agree
    along a smooth displacement.
    """
    above = settings.registration
    if above is None:
        return [weights_of(fabric, settings, ready, folder)]
    if above.joint:
        both = {**settings.objective, **above.objective}
        return [weights_of(fabric, settings, ready, folder, objective=Objective.of(both))]
    network = begun(settings, ready)
    if len({of_features(name) for name, _ in network.named_parameters()}) < 2:
        raise InputError("registration: this network learns features or their registration, not both.")
    lower = weights_of(fabric, settings, ready, folder, network=network, owns=of_features)
    upper = Weights(
        fabric=fabric,
        network=network,
        objective=Objective.of(above.objective),
        sampler=lower.sampler,
        settings=settings,
        owns=of_registration,
        how=above.optimizer,
        name=UPPER,
    )
    return [lower, upper]


def tuned_levels(
    fabric: Fabric, settings: TrainingSettings, ready: Prepared, folder: Path, own: Sampler
) -> list[Weights | Tuning]:
    """Weights, and the objective that they learn by; what it has become is written at every validation, as settings.

    Raises:
        InputError: the objective has nothing to tune.
    """
    tuning = settings.tuning
    assert tuning is not None
    terms = tuning.opened(settings.objective)
    start = Objective.of(terms)
    values = {name: torch.tensor(float(weight)) for name, weight in start.weights.items()}
    weights = weights_of(fabric, settings, ready, folder, objective=replace(start, weights=values))
    lambdas = Lambdas(
        start={name: float(weight) for name, weight in start.weights.items()},
        factors=tuning.factors(terms),
        mixtures=tuning.mixtures(terms),
    )

    def publish(objective: Mapping[str, Term]) -> None:
        plain = settings.replace(objective=dict(objective), tuning=None)
        with appearing(folder) as scratch:
            (scratch / TUNED).write_text(yaml_of(plain), encoding="utf-8")

    level = Tuning(
        weights=weights, lambdas=lambdas, values=values, outer=Objective.of(tuning.outer), sampler=own,
        settings=tuning, steps=settings.steps, terms=terms, publish=publish,
    )  # fmt: skip
    return [weights, level]


def of_features(name: str) -> bool:
    """Whether a parameter belongs to the encoder or decoder of features, or to a head that reads them."""
    return name.removeprefix("body.").split(".")[0] in ("encoder", "encoder_of_moving", "decoder", "heads")


def of_registration(name: str) -> bool:
    """Whether a parameter belongs to what registers features."""
    return not of_features(name)


def check(settings: TrainingSettings, ready: Prepared, objective: Objective) -> None:
    """Refuse a training whose head tells other structures than there are, or that could not say what its best weights are.

    Raises:
        InputError: it is one.
    """
    told = settings.network.labels
    if told and ready.structures is not None and told != ready.structures.rows.shape[1]:
        raise InputError(f"The network tells {told} structures apart, and there are {ready.structures.rows.shape[1]}.")
    labelled = any(fixed.labels is not None for fixed, _, _ in ready.validation)
    compares = any(isinstance(term, Similarity) for term in objective.terms.values())
    if ready.validation and not labelled and not compares:
        raise InputError(
            "Nothing says which weights are the best: those who select have no label maps, and the objective compares no "
            "images.",
            hint="Add a similarity, for example lncc, if need be with a small weight.",
        )


def begun(settings: TrainingSettings, ready: Prepared) -> nn.Module:
    """The network with its first weights: drawn, or those of `init`.

    Raises:
        InputError: `init` holds another network.
    """
    network = card_of(settings, ready).build()
    if not settings.init:
        return initialise(network, torch.Generator().manual_seed(settings.seed))
    known = Model.load(settings.init)
    if known.card.network != settings.network:
        raise InputError(f"init: {settings.init} holds another network than is to be trained: {known.card.network}.")
    adopt(network, known.network.state_dict(), Path(settings.init))
    return network


def weights_of(
    fabric: Fabric,
    settings: TrainingSettings,
    ready: Prepared,
    folder: Path,
    *,
    network: nn.Module | None = None,
    objective: Objective | None = None,
    owns: Callable[[str], bool] = everything,
) -> Weights:
    """Level 1 at its first step; its models go to best/ and last/ in the folder.

    Args:
        network: one that another level moves a part of; else a new one.
        objective: in place of that of the settings, with weights that another level owns.
        owns: the parameters that it moves, by name.
    """
    objective = Objective.of(settings.objective) if objective is None else objective
    check(settings, ready, objective)

    def judged(average: nn.Module) -> Judged | None:
        if ready.validation:
            return judge(average, objective, ready.validation, ready.labels, fabric.device, structures=ready.structures)
        if settings.synthetic is not None:
            return judge_synthetic(average, objective, ready.sampler, count=SYNTHETIC_PAIRS, device=fabric.device)
        return None

    def publish(name: str, step: int, figures: Mapping[str, float], weights: Mapping[str, Tensor]) -> None:
        with appearing(folder / name, last=CARD) as scratch:
            write_model(scratch, card_of(settings, ready, step=step, figures=figures), weights)

    return Weights(
        fabric=fabric,
        network=begun(settings, ready) if network is None else network,
        objective=objective,
        sampler=ready.sampler,
        settings=settings,
        judge=judged,
        publish=publish,
        owns=owns,
    )


def card_of(
    settings: TrainingSettings, ready: Prepared, *, step: int = 0, figures: Mapping[str, float] | None = None
) -> ModelCard:
    """The model's card after so many steps, and what validation said then."""
    content = settings.model_dump(mode="json")
    for key in ("dataset", "atlas"):  # names, not where they lie on this machine
        path = getattr(settings.data, key)
        content["data"][key] = None if path is None else path.name
    content["init"] = Path(settings.init).name
    if settings.data.teacher is not None:
        content["data"]["teacher"]["method"] = Path(settings.data.teacher.method).name
    return ModelCard(
        network=settings.network,
        licence=settings.licence,
        alignment="affine" if settings.synthetic is not None else settings.data.alignment,
        labels=tuple(range(1, len(settings.data.groups) + 1)) or ready.labels if settings.network.labels else (),
        training={"warpwise": __version__, "step": step, "settings": content},
        validation={k: round(v, 5) for k, v in (figures or {}).items()},
        **vars(ready.facts),
    )
