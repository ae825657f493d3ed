"""Many files through one translator: while a batch is computed, the next ones are read and the last ones written."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from data.image_io import ImageError
from models.inference.image_io import ImageArray, Job, from_output, read_image_array, to_tensor_from_array, write_image_array
from models.inference.translator import Translator
from util.errors import FILESYSTEM_ERRNOS, EnvironmentFailure, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

Existing = Literal["replace", "keep", "refuse"]

MAX_PENDING_BATCHES = 4  # images of various sizes that may wait for others of their size, in batches


@dataclass(frozen=True)
class Failure:
    """An image that has no translation, and why."""

    job: Job
    reason: str


@dataclass(frozen=True)
class _Read:
    job: Job
    samples: ImageArray


def translate_files(
    translator: Translator,
    jobs: Sequence[Job],
    batch_size: int,
    threads: int,
    on_complete: Callable[[Job], None],
    existing: Existing = "replace",
) -> list[Failure]:
    """Translates every job's image; those that cannot be are in the list returned, and the others are done.

    Images of equal sizes are computed together, up to `batch_size` and to what fits into memory. `threads` read, and as
    many write. `on_complete` is called for every job, whatever came of it.

    `existing` says what to do about a result that another program has written meanwhile: "replace" it, "keep" it, or
    "refuse", which makes the job fail.

    Raises:
        OSError: the disk is full, or must not be written to.
    """
    failures: list[Failure] = []

    def fail(job: Job, reason: str) -> None:
        failures.append(Failure(job, reason))
        on_complete(job)

    def wanted() -> Iterator[Job]:
        for job in jobs:
            if existing == "keep" and job.target.exists():
                on_complete(job)
            else:
                yield job

    def write(translated: tuple[Job, ImageArray]) -> tuple[Job, str | None]:
        job, samples = translated
        if existing != "replace" and job.target.exists():
            return job, None if existing == "keep" else "another program has written the result meanwhile"
        return job, _write(job, samples)

    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        try:
            read = _readable(_prefetch(readers, _read, wanted(), threads + batch_size), fail)
            translated = _translated(translator, _batches(translator, read, batch_size), fail)
            for job, reason in _prefetch(writers, write, translated, threads + batch_size):
                if reason is None:
                    on_complete(job)
                else:
                    fail(job, reason)
        except BaseException:
            readers.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
            raise
    return failures


def _prefetch(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """What `work` makes of the items, in order, computed in the pool up to `ahead` items before it is asked for."""
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _read(job: Job) -> tuple[Job, ImageArray | str]:
    try:
        return job, read_image_array(job.source)
    except ImageError as error:
        return job, str(error)


def _readable(read: Iterable[tuple[Job, ImageArray | str]], fail: Callable[[Job, str], None]) -> Iterator[_Read]:
    for job, samples in read:
        if isinstance(samples, str):
            fail(job, samples)
        else:
            yield _Read(job, samples)


def _batches(translator: Translator, read: Iterable[_Read], batch_size: int) -> Iterator[list[_Read]]:
    """Images of equal sizes together; the longest group goes first where many sizes wait."""
    groups: dict[tuple[int, ...], list[_Read]] = {}
    for image in read:
        height, width = image.samples.color.shape[:2]
        group = groups.setdefault((height, width), [])
        group.append(image)
        if len(group) >= min(batch_size, translator.max_batch_size(height, width)):
            yield groups.pop((height, width))
        elif sum(map(len, groups.values())) > MAX_PENDING_BATCHES * batch_size:
            yield groups.pop(max(groups, key=lambda size: len(groups[size])))
    yield from groups.values()


def _translated(
    translator: Translator, batches: Iterable[list[_Read]], fail: Callable[[Job, str], None]
) -> Iterator[tuple[Job, ImageArray]]:
    for batch in batches:
        tensors = [to_tensor_from_array(image.samples, translator.input_nc) for image in batch]
        try:
            translations = translator.translate(torch.stack(tensors)).cpu()
        except UserError as error:
            for image in batch:
                fail(image.job, str(error))
            continue
        for image, translation in zip(batch, translations, strict=True):
            yield image.job, from_output(translation, image.samples)


def _write(job: Job, samples: ImageArray) -> str | None:
    try:
        write_image_array(samples, job.target)
    except (OSError, ValueError, EnvironmentFailure) as error:
        if isinstance(error, OSError) and error.errno in FILESYSTEM_ERRNOS:
            raise
        return f"cannot be written as {job.target.suffix}: {error}"
    return None
