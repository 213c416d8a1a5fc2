"""A study from beginning to end: in one process or several, stopped and gone on with, and what it leaves for people."""

import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import yaml

from warpwise.errors import InputError, RunError
from warpwise.events import Event, OnEvent, ignore, note
from warpwise.extras import installed
from warpwise.io.run_folder import appearing, claim_folder, locked
from warpwise.levels.findings import Findings, findings
from warpwise.levels.study import BASELINE, JOURNAL, MAIN, Proposal, Pruned, Study, mend
from warpwise.levels.study_settings import StudySettings, read_study
from warpwise.levels.trials import BASE, Figures, Outcome, Report, Trial, described, trial_of
from warpwise.ops.runtime import get_threads, set_threads
from warpwise.settings import Settings

SETTINGS, TRIALS, BEST, FINDINGS = "study.yaml", "trials.jsonl", "best.yaml", "findings.json"
ANSWERED = ("complete", "pruned", "failed")


def run(
    settings: StudySettings | None,
    folder: Path,
    *,
    overwrite: bool = False,
    processes: int = 1,
    on_event: OnEvent = ignore,
) -> Findings:
    """Run a study to its end; the folder then holds best.yaml (a Method, or a training's settings), every trial in
    trials.jsonl, findings.json, and the journal.

    Args:
        settings: of a new study; None: go on with that of the folder.
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
    settings.search_space.check(settings.base())
    trial = trial_of(settings, folder)
    if not resume:
        claim_folder(folder, [SETTINGS, JOURNAL], overwrite=overwrite)
    with locked(folder):
        if not resume:
            (folder / JOURNAL).unlink(missing_ok=True)
            with appearing(folder, without=[TRIALS, BEST, FINDINGS]) as scratch:
                text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
                (scratch / SETTINGS).write_text(text, encoding="utf-8")
        pool = nullcontext(None) if processes == 1 else spawned(processes)
        with pool as executor:
            proposals, before = search(
                settings, folder, trial, executor=executor, worker=partial(share_of, folder, processes), workers=processes,
                on_event=on_event,
            )  # fmt: skip
        found = findings(settings, proposals, before)
        best = settings.search_space.applied(settings.base(), found.best.values)
        with appearing(folder) as scratch:
            (scratch / TRIALS).write_text(as_json(proposals), encoding="utf-8")
            (scratch / FINDINGS).write_text(found.json(), encoding="utf-8")
            (scratch / BEST).write_text(described(best), encoding="utf-8")
    return found


def spawned(processes: int) -> ProcessPoolExecutor:
    """Processes that begin from nothing, as they must where there are threads."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def share_of(folder: Path, processes: int, name: str) -> None:
    """A process's share of a search whose settings stand in a folder."""
    set_threads(max(1, get_threads() // processes))
    settings = read_study(folder / SETTINGS)
    work(Study(settings, settings.base(), folder, name), trial_of(settings, folder))


def search(
    settings: StudySettings,
    folder: Path,
    trial: Trial,
    *,
    executor: Executor | None = None,
    worker: Callable[[str], None] | None = None,
    workers: int = 1,
    on_event: OnEvent = ignore,
) -> tuple[dict[str, list[Proposal]], Outcome]:
    """All proposals of a study, and those of the random search that it is compared with, by name; and what the settings
    that it changes come to by themselves.

    Args:
        folder: of the journal, which nobody else is at work in; trial: what is tried.
        executor: where `worker`, given the name of a search, does a share of it, as often as there are `workers`; None:
            all is done here.

    Raises:
        RunError: no proposal worked.
    """
    mend(folder)
    base = settings.base()
    if settings.sampler == "gp" and not settings.faithful and not installed("torch"):
        on_event(note("A Gaussian process needs torch, which is not installed: a Parzen estimator (tpe) proposes."))
    out: dict[str, list[Proposal]] = {}
    before = Outcome({})
    for name in (MAIN, BASELINE) if settings.baseline else (MAIN,):
        study = Study(settings, base, folder, name)
        if again := study.requeue():
            on_event(note(f"Stopped in the middle, and tried again: {', '.join(map(str, again))}."))
        if name == MAIN:
            before = study.base_outcome or attempt(trial, base, BASE, ignored)[0] or Outcome({})
        study.base_outcome = before
        if name == MAIN:
            on_event(note(f"What it begins with: {words(before.figures)}."))
        if executor is None or worker is None:
            work(study, trial, on_event)
        else:
            share(study, executor, partial(worker, name), workers, on_event)
        out[name] = study.proposals()
    if not any(p.state == "complete" for p in out[MAIN]):
        reasons = list(dict.fromkeys(p.why for p in out[MAIN] if p.why))
        raise RunError(f"None of {len(out[MAIN])} proposals worked.", hint=reasons[0] if reasons else "")
    return out, before


def work(study: Study, trial: Trial, on_event: OnEvent = ignore) -> None:
    """Try proposals until all were made."""
    while (asked := study.ask()) is not None:
        number, values = asked
        began = time.perf_counter()
        try:
            settings = study.space.applied(study.base, values)
        except InputError as error:
            outcome, why = None, str(error)
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
    except (InputError, RunError) as error:
        return None, str(error)


def ignored(step: int, figures: Figures) -> None:
    """A report that nobody asks for."""


def words(figures: Figures) -> str:
    """Figures for people."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items()) or "it does not work"


def share(study: Study, executor: Executor, worker: Callable[[], None], workers: int, on_event: OnEvent) -> None:
    """Several processes at work on one search; tells of each proposal as it is answered."""
    known = {p.number for p in study.proposals() if p.state in ANSWERED}
    jobs = [executor.submit(worker) for _ in range(workers)]
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
