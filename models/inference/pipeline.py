"""Many files through one translator: while a batch is computed, the next ones are read and the last ones written."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from data.image_io import PictureError
from models.inference.image_io import Job, Samples, read_samples, tensor_of_samples, translated_samples, write_samples
from models.inference.translator import Translator
from util.errors import REFUSED_BY_THE_FILE_SYSTEM, MachineError, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

Existing = Literal["replace", "keep", "refuse"]

WAITING_BATCHES = 4  # pictures of various sizes that may wait for others of their size, in batches


@dataclass(frozen=True)
class Failure:
    """A picture that has no translation, and why."""

    job: Job
    reason: str


@dataclass(frozen=True)
class _Read:
    job: Job
    samples: Samples


def translate_files(
    translator: Translator,
    jobs: Sequence[Job],
    batch_size: int,
    threads: int,
    on_done: Callable[[Job], None],
    existing: Existing = "replace",
) -> list[Failure]:
    """Translates every job's picture; those that cannot be are in the list returned, and the others are done.

    Pictures of equal sizes are computed together, up to `batch_size` and to what fits into memory. `threads` read, and as
    many write. `on_done` is called for every job, whatever came of it.

    `existing` says what to do about a result that another program has written meanwhile: "replace" it, "keep" it, or
    "refuse", which makes the job fail.

    Raises:
        OSError: the disk is full, or must not be written to.
    """
    failures: list[Failure] = []

    def fail(job: Job, reason: str) -> None:
        failures.append(Failure(job, reason))
        on_done(job)

    def wanted() -> Iterator[Job]:
        for job in jobs:
            if existing == "keep" and job.target.exists():
                on_done(job)
            else:
                yield job

    def write(translated: tuple[Job, Samples]) -> tuple[Job, str | None]:
        job, samples = translated
        if existing != "replace" and job.target.exists():
            return job, None if existing == "keep" else "another program has written the result meanwhile"
        return job, _write(job, samples)

    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        try:
            read = _readable(_ahead(readers, _read, wanted(), threads + batch_size), fail)
            translated = _translated(translator, _batches(translator, read, batch_size), fail)
            for job, reason in _ahead(writers, write, translated, threads + batch_size):
                if reason is None:
                    on_done(job)
                else:
                    fail(job, reason)
        except BaseException:
            readers.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
            raise
    return failures


def _ahead(pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """What `work` makes of the items, in order, computed in the pool up to `ahead` items before it is asked for."""
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _read(job: Job) -> tuple[Job, Samples | str]:
    try:
        return job, read_samples(job.source)
    except PictureError as error:
        return job, str(error)


def _readable(read: Iterable[tuple[Job, Samples | str]], fail: Callable[[Job, str], None]) -> Iterator[_Read]:
    for job, samples in read:
        if isinstance(samples, str):
            fail(job, samples)
        else:
            yield _Read(job, samples)


def _batches(translator: Translator, read: Iterable[_Read], batch_size: int) -> Iterator[list[_Read]]:
    """Pictures of equal sizes together; the longest group goes first where many sizes wait."""
    groups: dict[tuple[int, ...], list[_Read]] = {}
    for picture in read:
        height, width = picture.samples.colour.shape[:2]
        group = groups.setdefault((height, width), [])
        group.append(picture)
        if len(group) >= min(batch_size, translator.fitting(height, width)):
            yield groups.pop((height, width))
        elif sum(map(len, groups.values())) > WAITING_BATCHES * batch_size:
            yield groups.pop(max(groups, key=lambda size: len(groups[size])))
    yield from groups.values()


def _translated(
    translator: Translator, batches: Iterable[list[_Read]], fail: Callable[[Job, str], None]
) -> Iterator[tuple[Job, Samples]]:
    for batch in batches:
        tensors = [tensor_of_samples(picture.samples, translator.input_nc) for picture in batch]
        try:
            translations = translator.translate(torch.stack(tensors)).cpu()
        except UserError as error:
            for picture in batch:
                fail(picture.job, str(error))
            continue
        for picture, translation in zip(batch, translations, strict=True):
            yield picture.job, translated_samples(translation, picture.samples)


def _write(job: Job, samples: Samples) -> str | None:
    try:
        write_samples(samples, job.target)
    except (OSError, ValueError, MachineError) as error:
        if isinstance(error, OSError) and error.errno in REFUSED_BY_THE_FILE_SYSTEM:
            raise
        return f"cannot be written as {job.target.suffix}: {error}"
    return None
