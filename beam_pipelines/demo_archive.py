"""Draws and writes a planned demo archive, slices in parallel, memory flat.

Every slice is drawn on its own from its plan and its own random numbers, so neither the order nor
the number of workers changes a byte.
"""

import collections
import csv
import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field

import cv2

from beam_pipelines import storage
from beam_pipelines.demo_plan import DemoPlan, SlicePlan, StudyPlan, pixel_stream
from beam_pipelines.phantom_headers import encode, store
from beam_pipelines.phantom_lesions import SUBTYPES
from beam_pipelines.phantoms import OUTSIDE_HU, labels_of, render_slice
from beam_pipelines.zip_writer import DeflatedMember, ZipWriter, deflate

ROOT = "rsna-intracranial-hemorrhage-detection"
LABEL_NAMES = (*SUBTYPES, "any")

_SLICES_A_TASK = 8
_TASKS_AHEAD = 4  # a worker; bounds what waits to be written


@dataclass(frozen=True)
class Task:
    """A few members for one worker: (study's plan, study's number, slice's number) each."""

    seed: int
    members: tuple[tuple[StudyPlan, int, int], ...]


@dataclass
class Summary:
    """What an archive holds."""

    patients: int
    series: dict[str, int]
    slices: dict[str, int] = field(default_factory=lambda: {"train": 0, "test": 0})
    positives: dict[str, list[int]] = field(
        default_factory=lambda: {s: [0] * len(LABEL_NAMES) for s in ("train", "test")}
    )
    size: int = 0


@dataclass(frozen=True)
class DrawnSlice:
    """A slice as a worker returns it."""

    subset: str
    sop_instance_uid: str
    labels: tuple[int, ...]
    member: DeflatedMember


def draw_slice(study: StudyPlan, study_number: int, index: int, seed: int) -> DrawnSlice:
    """Draws, encodes and deflates one slice of a study."""
    plan = study.slices[index]
    rng = pixel_stream(seed, study_number, index)
    hu, areas = render_slice(study.head, study.scan, study.lesions, plan.level_mm, rng)
    stored = store(hu, study.variant, hu == OUTSIDE_HU)
    contents = encode(plan.identity, plan.geometry, study.variant, stored)
    contents = contents[: len(contents) - _missing_bytes(plan, stored.nbytes)]
    uid = plan.identity.sop_instance_uid
    member = deflate(f"{ROOT}/stage_2_{study.subset}/{uid}.dcm", contents)
    return DrawnSlice(study.subset, uid, labels_of(areas), member)


def _missing_bytes(plan: SlicePlan, pixel_bytes: int) -> int:
    return pixel_bytes - int(plan.keep * pixel_bytes)


def draw_task(task: Task) -> list[DrawnSlice]:
    """Draws the slices of one task; runs in a worker."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    return [draw_slice(*member, task.seed) for member in task.members]


def write_archive(
    plan: DemoPlan,
    output: str,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    solution: str | None = None,
) -> Summary:
    """Writes a planned archive; the file appears under its name when it is complete.

    Args:
        plan: What to draw.
        output: The zip to write, local or in a bucket.
        workers: Worker processes; 1 draws in this process.
        progress: Called with the slices written and all slices.
        solution: Where to write the labels of the test slices, which the archive does not hold.

    Returns:
        What was written.
    """
    subsets = [study.subset for study in plan.studies]
    summary = Summary(plan.num_patients, {s: subsets.count(s) for s in ("train", "test")})
    labels: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "test": {}}
    with storage.open_atomic(output) as file:
        writer = ZipWriter(file)
        for done, drawn in enumerate(_draw_all(plan, workers), start=1):
            writer.add(drawn.member)
            labels[drawn.subset][drawn.sop_instance_uid] = drawn.labels
            summary.slices[drawn.subset] += 1
            positives = summary.positives[drawn.subset]
            summary.positives[drawn.subset] = [
                a + b for a, b in zip(positives, drawn.labels, strict=True)
            ]
            progress(done, len(plan.order))
        repeated = [(uid, labels["train"][uid]) for uid in plan.duplicates]
        train = label_rows([*labels["train"].items(), *repeated])
        half = label_rows([(uid, (0.5,) * len(LABEL_NAMES)) for uid in sorted(labels["test"])])
        writer.add(deflate(f"{ROOT}/stage_2_train.csv", train))
        writer.add(deflate(f"{ROOT}/stage_2_sample_submission.csv", half))
        writer.close()
        summary.size = writer.size
    if solution is not None:
        with storage.open_atomic(solution) as file:
            file.write(label_rows(sorted(labels["test"].items())))
    return summary


def label_rows(
    labels: list[tuple[str, tuple[int, ...]]] | list[tuple[str, tuple[float, ...]]],
) -> bytes:
    """Returns a CSV `ID,Label` with six rows a slice, as bytes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("ID", "Label"))
    for uid, values in labels:
        rows.writerows((f"{uid}_{name}", v) for name, v in zip(LABEL_NAMES, values, strict=True))
    return text.getvalue().encode()


def _draw_all(plan: DemoPlan, workers: int) -> Iterator[DrawnSlice]:
    """Yields all slices in the plan's order, with a bounded number of tasks under way."""
    members = [(plan.studies[s], s, i) for s, i in plan.order]
    tasks = (
        Task(plan.seed, tuple(members[k : k + _SLICES_A_TASK]))
        for k in range(0, len(members), _SLICES_A_TASK)
    )
    if workers == 1:
        for task in tasks:
            yield from draw_task(task)
        return
    # Spawned workers start alike on every system and inherit no threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: collections.deque[Future[list[DrawnSlice]]] = collections.deque()
        for task in tasks:
            waiting.append(pool.submit(draw_task, task))
            if len(waiting) >= workers * _TASKS_AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
