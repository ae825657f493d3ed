"""Translate many files: read the next images and write the last results while a batch is computed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from data.image_array import ImageArray, ImageError
from data.image_reader import DEFAULT_READING, ReadOptions
from models.inference.image_io import Job, check_target, result_dtype, write_image_array
from models.inference.translator import Translator
from util.errors import FILESYSTEM_ERRNOS, EnvironmentFailure, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

Existing = Literal["replace", "keep", "refuse"]

MAX_PENDING_BATCHES = 4  # images of several sizes that wait for others of their size, in batches


@dataclass(frozen=True)
class Failure:
    """An image that could not be translated, and the reason."""

    job: Job
    reason: str


@dataclass(frozen=True)
class _Loaded:
    job: Job
    array: ImageArray


def translate_files(
    translator: Translator,
    jobs: Sequence[Job],
    batch_size: int,
    threads: int,
    on_complete: Callable[[Job], None],
    existing: Existing = "replace",
    options: ReadOptions = DEFAULT_READING,
    on_start: Callable[[Job], None] = lambda job: None,
) -> list[Failure]:
    """Translate the image of every job. Return the failures; all other results are on disk.

    Args:
        translator: the generator.
        jobs: files to read and to write.
        batch_size: largest number of images of equal size in a batch; smaller if memory is.
        threads: number of threads that read, and number of threads that write.
        on_complete: called once for every job, when its result is written or it has failed. Also called in other threads.
        existing: what to do if another program has written a result in the meantime: "replace" it, "keep" it, or "refuse",
            which makes the job fail.
        options: how files are read.
        on_start: called with the first job of each batch before it is computed.
    Raises:
        OSError: the disk is full or read-only.
    """
    failures: list[Failure] = []

    def fail(job: Job, reason: str) -> None:
        failures.append(Failure(job, reason))
        on_complete(job)

    def jobs_to_read() -> Iterator[Job]:
        for job in jobs:
            if existing == "keep" and job.target.exists():
                on_complete(job)
            else:
                yield job

    def read(job: Job) -> tuple[Job, ImageArray | str]:
        return job, _read(job, translator, options)

    def write(result: tuple[Job, ImageArray]) -> tuple[Job, str | None]:
        job, array = result
        if existing == "replace" or not job.target.exists():
            reason = _write(job, array)
        else:
            reason = None if existing == "keep" else "another program has written the result in the meantime"
        on_complete(job)
        return job, reason

    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        try:
            loaded = _drop_unreadable(_prefetch(readers, read, jobs_to_read(), threads + batch_size), fail)
            outputs = _translate_batches(translator, _batches(translator, loaded, batch_size), on_start, fail)
            for job, reason in _prefetch(writers, write, outputs, threads + batch_size):
                if reason is not None:
                    failures.append(Failure(job, reason))
        except BaseException:
            readers.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
            raise
    return failures


def _prefetch(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield `work(item)` in order, computed in the pool up to `ahead` items in advance."""
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _read(job: Job, translator: Translator, options: ReadOptions) -> ImageArray | str:
    """Return the image of the job, or the reason if it cannot be read, translated or written."""
    try:
        array = options.read_array(str(job.source))
        translator.check(array)
        dtype = result_dtype(array.pixels.dtype, translator.output_range, translator.input_range)
        check_target(array, job.target, translator.output_nc, dtype)
        return array
    except ImageError as error:
        return str(error)


def _drop_unreadable(results: Iterable[tuple[Job, ImageArray | str]], fail: Callable[[Job, str], None]) -> Iterator[_Loaded]:
    for job, result in results:
        if isinstance(result, str):
            fail(job, result)
        else:
            yield _Loaded(job, result)


def _batches(translator: Translator, images: Iterable[_Loaded], batch_size: int) -> Iterator[list[_Loaded]]:
    """Yield batches of images of equal size. If too many sizes wait, the largest group comes first."""
    groups: dict[tuple[int, ...], list[_Loaded]] = {}
    for image in images:
        height, width = image.array.pixels.shape[:2]
        group = groups.setdefault((height, width), [])
        group.append(image)
        if len(group) >= min(batch_size, translator.max_batch_size(height, width)):
            yield groups.pop((height, width))
        elif sum(map(len, groups.values())) > MAX_PENDING_BATCHES * batch_size:
            yield groups.pop(max(groups, key=lambda size: len(groups[size])))
    yield from groups.values()


def _translate_batches(
    translator: Translator,
    batches: Iterable[list[_Loaded]],
    on_start: Callable[[Job], None],
    fail: Callable[[Job, str], None],
) -> Iterator[tuple[Job, ImageArray]]:
    for batch in batches:
        on_start(batch[0].job)
        tensors = [translator.to_tensor(image.array) for image in batch]
        try:
            outputs = translator.translate(torch.stack(tensors)).cpu()
        except UserError as error:
            for image in batch:
                fail(image.job, str(error))
            continue
        for image, output in zip(batch, outputs, strict=True):
            yield image.job, translator.from_output(output, image.array)


def _write(job: Job, array: ImageArray) -> str | None:
    """Write a result. Return the reason if the file cannot be written, else None."""
    try:
        write_image_array(array, job.target)
    except (OSError, ValueError, EnvironmentFailure, ImageError) as error:
        if isinstance(error, OSError) and error.errno in FILESYSTEM_ERRNOS:
            raise
        return f"cannot be written as {job.target.suffix}: {error}"
    return None
