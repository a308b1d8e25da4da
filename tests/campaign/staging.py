"""SIGKILL at every executed line while staging, deciding and planning, and while proving."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from campaign.kills import NIGHT_EVERY, spread
from campaign.report import Config, Figures, part
from campaign.steps import stage_steps
from campaign.trial import Lane, finish, run_trials
from campaign.worlds import World, world_of

STAGING_FILES = ("extract.py", "records.py", "db.py", "decide.py", "plan.py", "prove.py", "run.py", "payload.py")
LOOPS = ("extract.py", "records.py", "payload.py")  # run once per record: their first and last pass is enough
QUICK = {"staging": 12, "proving": 6}


def start(lane: Lane, world: World, pipeline: object, task: str, **order: object) -> int:
    """A worker that stages and decides, or proves."""
    return lane.workers.start(
        pipeline, task, run_id=world.prepared.run_id, files=STAGING_FILES, once=LOOPS, **order  # type: ignore[arg-type]
    )  # fmt: skip


def trial(lane: Lane, world: World, *, task: str, kill_at: int) -> Figures:
    """Kill the worker at a line; the killed task is run again, then those after it; judge."""
    with lane.copy(world) as pipeline:
        ended = lane.workers.wait(start(lane, world, pipeline, task, kill_at=kill_at))
        killed_at = time.perf_counter()
        if task == "stage":
            go_on(pipeline, world.prepared.run_id, ended.step)
        figures = finish(lane, pipeline, world, killed_at=killed_at, with_night=kill_at % NIGHT_EVERY == 0)
        if ended.status != -9:
            figures.failures.append(f"the worker was not killed at line {kill_at}: {ended}")
        return figures + Figures(kills=1, covered={NAMES[task]: 1})


NAMES = {"stage": "staging", "prove": "proving"}


def go_on(pipeline: object, run_id: int, step: str) -> None:
    """Run the tasks of a run from one on, as Airflow does after it failed."""
    steps = stage_steps(pipeline, run_id)  # type: ignore[arg-type]
    names = [name for name, _ in steps]
    for _, work in steps[names.index(step) :]:
        work()


def count(lane: Lane, world: World, *, task: str) -> Figures:
    """How many lines are run when nobody disturbs, and which of them to kill at (in `notes`)."""
    with lane.copy(world) as pipeline:
        ended = lane.workers.wait(start(lane, world, pipeline, task, wants_marks=True))
        assert ended.status == 0, ended
        assert not ended.error, ended
        return Figures(points={NAMES[task]: len(ended.marks)}, notes=[" ".join(map(str, [ended.lines, *ended.marks]))])


@part("staging")
def staging(config: Config) -> Figures:
    """SIGKILL of the process that stages, decides and plans, and of the one that proves, at every line they execute."""
    total = Figures()
    for task, world_name in (("stage", "everything_to_stage"), ("prove", "everything_delivered")):
        world = world_of(config, world_name)
        counted = run_trials(replace(config, only=""), "staging", count, world, [("count", {"task": task})])
        lines, *marks = map(int, counted.notes.pop().split())
        name = NAMES[task]
        if config.quick:
            chance = random.Random(f"{config.seed}/staging/{task}")
            marks = [marks[place - 1] for place in spread(chance, len(marks), QUICK[name])]
        counted.notes.append(
            f"{name}: {lines:,} executed lines; of {', '.join(LOOPS)} each line's first and last pass of each task"
        )
        trials = [(f"{task}/{k}", {"task": task, "kill_at": k}) for k in marks]
        total += counted + run_trials(config, "staging", trial, world, trials)
    return total
