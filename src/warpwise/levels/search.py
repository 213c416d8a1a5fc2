"""A study from beginning to end: in one process or several, stopped and gone on with, and what it leaves for people."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from warpwise.errors import InputError, RunError
from warpwise.events import Event, OnEvent, ignore, note
from warpwise.extras import installed
from warpwise.io.run_folder import appearing, claim_folder, locked
from warpwise.levels.findings import Findings, findings
from warpwise.levels.settings import yaml_of
from warpwise.levels.study import BASELINE, JOURNAL, MAIN, Proposal, Pruned, Study, mend
from warpwise.levels.study_settings import StudySettings, read_study
from warpwise.levels.trials import BASE, Figures, Outcome, Report, Trial, described, trial_of
from warpwise.ops.runtime import get_threads, set_threads
from warpwise.settings import Settings

SETTINGS, TRIALS, BEST, FINDINGS = "study.yaml", "trials.jsonl", "best.yaml", "findings.json"
BASE_FILE, STOP, WORKER = "base.yaml", ".stop", ".worker-{}.lock"
ANSWERED = ("complete", "pruned", "failed")


def run(
    settings: StudySettings | None,
    folder: Path,
    *,
    trials: int | None = None,
    overwrite: bool = False,
    processes: int = 1,
    on_event: OnEvent = ignore,
) -> Findings:
    """Run a study to its end; the folder then holds best.yaml (a Method, or a training's settings), every trial in
    trials.jsonl, findings.json, the journal, and what the study began with as base.yaml.

    Args:
        settings: of a new study; None: go on with that of the folder.
        trials: of a study that goes on, as many as it had and more.
        processes: that try proposals side by side.

    Raises:
        InputError: the study or its data cannot be used, or somebody else is at work in the folder.
        RunError: no proposal worked.
    """
    resume = settings is None
    if settings is None:
        if not (folder / SETTINGS).exists():
            raise InputError(f"{folder}: there is no study to go on with (no {SETTINGS}).")
        settings = read_study(folder / SETTINGS)
        settings = settings if trials is None else settings.replace(trials=max(trials, settings.trials))
    timed = {"seconds"} & {*settings.objectives, *settings.constraints}
    if processes > 1 and timed:
        raise InputError("seconds: trials that run side by side slow each other down.", hint="Leave --processes out.")
    base = settings.base()
    settings.search_space.check(base)
    trial = trial_of(settings, folder)
    if not resume:
        claim_folder(folder, [SETTINGS, JOURNAL], overwrite=overwrite)
    with locked(folder), ended_alike():
        nobody_at_work(folder)
        with appearing(folder, without=[] if resume else [TRIALS, BEST, FINDINGS]) as scratch:
            if not resume:
                (folder / JOURNAL).unlink(missing_ok=True)
                (scratch / BASE_FILE).write_text(described(base), encoding="utf-8")
            # Settings and base are the study's own from now on, whatever becomes of the files that they were read from.
            own = settings.replace(**{"method" if settings.method is not None else "config": BASE_FILE})
            (scratch / SETTINGS).write_text(yaml_of(own), encoding="utf-8")
        stop = folder / STOP
        stop.unlink(missing_ok=True)
        pool = nullcontext(None) if processes == 1 else spawned(processes)
        with pool as executor:
            try:
                shared: Callable[[Study], None] | None = None
                if executor is not None:
                    worker = partial(share_of, folder, max(1, get_threads() // processes))
                    shared = partial(share, executor=executor, worker=worker, workers=processes, on_event=on_event)
                finish = partial(leave, settings, base, folder)
                proposals, before = search(settings, folder, trial, shared=shared, on_event=on_event, on_end=finish)
                return finish(proposals, before)
            except BaseException:
                stop.touch()  # workers end after the trial that they are at
                raise


def leave(
    settings: StudySettings, base: Settings, folder: Path, proposals: Mapping[str, Sequence[Proposal]], before: Outcome
) -> Findings:
    """Write what a study came to: all trials, what they say, and the best."""
    with appearing(folder) as scratch:
        (scratch / TRIALS).write_text(as_json(proposals), encoding="utf-8")
    found = findings(settings, proposals, before)
    best = settings.search_space.applied(base, found.best.values)
    with appearing(folder) as scratch:
        (scratch / FINDINGS).write_text(found.json(), encoding="utf-8")
        (scratch / BEST).write_text(described(best), encoding="utf-8")
    return found


@contextmanager
def ended_alike() -> Generator[None]:
    """Within, SIGTERM ends a study as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def nobody_at_work(folder: Path) -> None:
    """Refuse a folder in which a process of an earlier search is still at its last trial.

    Raises:
        InputError: there is one.
    """
    for left in folder.glob(WORKER.format("*")):
        lock = FileLock(left)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{folder}: a process of an earlier search is still at work here ({left.name}).") from None
        lock.release()
        left.unlink(missing_ok=True)


def spawned(processes: int) -> ProcessPoolExecutor:
    """Processes that begin from nothing, as they must where there are threads."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def share_of(folder: Path, threads: int, name: str) -> None:
    """A process's share of a search whose settings stand in a folder; it ends when its parent is gone, or says so."""
    set_threads(threads)
    if installed("torch"):
        import torch  # noqa: PLC0415 - a second to import

        torch.set_num_threads(threads)
    parent = os.getppid()
    settings = read_study(folder / SETTINGS)
    with FileLock(folder / WORKER.format(os.getpid())):
        study, trial = Study(settings, settings.base(), folder, name), trial_of(settings, folder).of(name)
        work(study, trial, goes_on=lambda: os.getppid() == parent and not (folder / STOP).exists())


def search(
    settings: StudySettings,
    folder: Path,
    trial: Trial,
    *,
    shared: Callable[[Study], None] | None = None,
    on_event: OnEvent = ignore,
    on_end: Callable[[dict[str, list[Proposal]], Outcome], object] | None = None,
) -> tuple[dict[str, list[Proposal]], Outcome]:
    """All proposals of a study, and then of the random search that it is compared with, by name; and what the settings that
    it changes come to by themselves.

    Args:
        folder: of the journal, which nobody else is at work in; trial: what is tried.
        shared: does a search whole, in several processes; None: it is done here.
        on_end: told of all that is there after each of the two.

    Raises:
        RunError: no proposal worked.
    """
    mend(folder)
    base = settings.base()
    if settings.sampler == "gp" and not settings.faithful and not installed("torch"):
        on_event(note("A Gaussian process needs torch, which is not installed: a Parzen estimator (tpe) proposes."))
    proposals: dict[str, list[Proposal]] = {}
    before = Outcome({})
    for name in (MAIN, BASELINE) if settings.baseline else (MAIN,):
        study, mine = Study(settings, base, folder, name), trial.of(name)
        if again := study.requeue():
            on_event(note(f"Stopped in the middle, and tried again: {', '.join(str(n + 1) for n in again)}."))
        if name == MAIN:
            before = begun(study, mine, base)
            on_event(note(f"What it begins with: {words(before.figures)}."))
        study.base_outcome = before
        if shared is None:
            work(study, mine, on_event)
        else:
            shared(study)
        proposals[name] = study.proposals()
        if not any(p.state == "complete" for p in proposals[MAIN]):
            reasons = list(dict.fromkeys(p.why for p in proposals[MAIN] if p.why))
            raise RunError(f"None of {len(proposals[MAIN])} proposals worked.", hint=reasons[0] if reasons else "")
        if on_end is not None:
            on_end(proposals, before)
    return proposals, before


def begun(study: Study, trial: Trial, base: Settings) -> Outcome:
    """What a study begins with comes to, now or before.

    Raises:
        InputError: it does not work, and figures are bounded by it.
    """
    known = study.base_outcome
    if known is not None:
        return known
    outcome, why = attempt(trial, base, BASE, ignored)
    if outcome is None and any(bound.of_base for bound in study.settings.constraints.values()):
        raise InputError(f"What the study begins with does not work, and figures are bounded by its: {why}")
    return outcome or Outcome({})


def always() -> bool:
    """Go on."""
    return True


def work(study: Study, trial: Trial, on_event: OnEvent = ignore, *, goes_on: Callable[[], bool] = always) -> None:
    """Try proposals until all were made, or there is a reason to end."""
    begun_with = study.space.of(study.base)
    while goes_on() and (asked := study.ask()) is not None:
        number, values = asked
        began = time.perf_counter()
        before = study.base_outcome
        try:
            settings = study.space.applied(study.base, values)
        except InputError as error:
            outcome, why = None, str(error)
        else:
            if values == begun_with and before is not None and before.figures:
                outcome, why = before, ""  # it is known
            else:
                outcome, why = attempt(trial, settings, number, partial(study.report, number))
        study.tell(number, outcome, why=why, seconds=time.perf_counter() - began)
        tell(on_event, study, study.proposals()[number])


def attempt(trial: Trial, settings: Settings, number: int, report: Report) -> tuple[Outcome | None, str]:
    """What settings come to; None where they were pruned, or do not work, and why."""
    try:
        return trial(settings, number, report), ""
    except Pruned:
        return None, ""
    except (InputError, RunError, ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
        return None, str(error) or type(error).__name__  # other settings may work


def ignored(step: int, figures: Figures) -> None:
    """A report that nobody asks for."""


def words(figures: Figures) -> str:
    """Figures for people."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items()) or "it does not work"


def share(study: Study, *, executor: Executor, worker: Callable[[str], None], workers: int, on_event: OnEvent) -> None:
    """Several processes at work on one search; tells of each proposal as it is answered."""
    known = {p.number for p in study.proposals() if p.state in ANSWERED}
    jobs = [executor.submit(worker, study.name) for _ in range(workers)]
    running = True
    while running:
        running = bool(wait(jobs, timeout=0.5).not_done)
        for proposal in study.proposals():
            if proposal.number not in known and proposal.state in ANSWERED:
                known.add(proposal.number)
                tell(on_event, study, proposal)
    for job in jobs:
        job.result()


def tell(on_event: OnEvent, study: Study, proposal: Proposal) -> None:
    """Say what became of a proposal."""
    text = proposal.why or ("" if proposal.state == "complete" else proposal.state)
    step, steps = proposal.number + 1, study.settings.trials
    on_event(Event(study.name, step=step, steps=steps, values=proposal.figures, text=text))


def as_json(proposals: Mapping[str, Sequence[Proposal]]) -> str:
    """All proposals as text, one object a line."""
    lines = [{"search": name, **vars(p)} for name, several in proposals.items() for p in several]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
