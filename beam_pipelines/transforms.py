"""The PTransforms that every pipeline is made of; wiring only.

A pipeline's work is a *builder*: a small picklable object that makes one shard from one task and
returns its receipt. Builders know nothing of Beam and are tested without it.

A worker's UserError is hidden from Beam, which would try again and print pages of traceback: it
takes the place of the receipt, nothing is published, and `raise_user_error` raises it when the
pipeline has finished.
"""

import argparse
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindows

from beam_pipelines.errors import UserError
from beam_pipelines.progress import Advance, append_to
from beam_pipelines.shards import Receipt, check_complete

NAMESPACE = "slices"
_ERROR = "user_error"
_LOGGER = logging.getLogger(__name__)


class BuildOptions(PipelineOptions):
    """How a worker process builds its shards; for programs, set by `runs.pipeline_options`."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--build_threads", type=int, default=1)
        parser.add_argument("--progress_file", default=None, help=argparse.SUPPRESS)


class Builder(Protocol):
    """Makes shards; one instance a worker, which may build several shards at once in threads."""

    def setup(self) -> None:
        """Opens what all tasks need: the archive, a model."""

    def build(self, task: Any, advance: Advance) -> Receipt:
        """Makes one shard.

        Args:
            task: holds its values; an iterator might end before the shard is built.
            advance: to be called as slices are done.

        Returns:
            Its receipt, with `slices_in` and `num_slices` (those written), `quarantined`, a list
            of the others, and `reused` where the shard was there already.
        """


class _BuildShard(beam.DoFn):
    """Runs a builder and counts what it did.

    With several threads a bundle's shards are built side by side. A bundle's next task is taken
    when a thread is free, so uneven shards keep all threads busy to the end; Beam's own local
    workers are dealt their tasks at the start. Native code does the work and lets go of the GIL.
    """

    def __init__(self, builder: Builder, threads: int, progress_file: str | None) -> None:
        self._builder = builder
        self._threads = threads
        self._progress_file = progress_file
        self._counters = {
            name: Metrics.counter(NAMESPACE, name)
            for name in ("slices_in", "slices_written", "slices_quarantined", "shards_reused")
        }

    def setup(self) -> None:
        self._builder.setup()
        self._advance = append_to(self._progress_file)
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None

    def start_bundle(self) -> None:
        self._running: set[Future[Receipt]] = set()

    def process(self, task: Any) -> Iterable[Receipt]:
        if self._pool is None:
            yield self._count(self._build(task))
            return
        if len(self._running) == self._threads:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            yield from (self._count(future.result()) for future in done)
        self._running.add(self._pool.submit(self._build, task))

    def finish_bundle(self) -> Iterable[Any]:
        for future in self._running:
            yield GlobalWindows.windowed_value(self._count(future.result()))

    def teardown(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _build(self, task: Any) -> Receipt:
        try:
            receipt = self._builder.build(task, self._advance)
        except UserError as error:
            return {_ERROR: str(error)}
        if receipt.get("reused", False):
            self._advance(receipt["num_slices"], len(receipt["quarantined"]))
        return receipt

    def _count(self, receipt: Receipt) -> Receipt:
        # Metrics belong to the thread that Beam runs the bundle in.
        if _ERROR not in receipt:
            self._counters["slices_in"].inc(receipt["slices_in"])
            self._counters["slices_written"].inc(receipt["num_slices"])
            self._counters["slices_quarantined"].inc(len(receipt["quarantined"]))
            self._counters["shards_reused"].inc(int(receipt.get("reused", False)))
        return receipt


@dataclass
class BuildShards(beam.PTransform):
    """Makes a shard from each task: tasks in, receipts out. Tasks are small; pixels stay inside."""

    builder: Builder

    def expand(self, tasks: Any) -> Any:
        """Applies the builder to every task."""
        options = tasks.pipeline.options.view_as(BuildOptions)
        return tasks | "BuildShard" >> beam.ParDo(
            _BuildShard(self.builder, options.build_threads, options.progress_file)
        )


@dataclass
class PublishShards(beam.PTransform):
    """Hands all receipts, however few, to a function that declares the output complete."""

    publish: Callable[[list[Receipt]], None]

    def expand(self, receipts: Any) -> Any:
        """Calls `publish` once, when every shard is there."""
        return (
            receipts.pipeline
            | "Once" >> beam.Create([None])
            | "Publish" >> beam.Map(_publish, self.publish, beam.pvalue.AsList(receipts))
        )


def _publish(
    _: None, publish: Callable[[list[Receipt]], None], receipts: list[Receipt]
) -> dict[str, int]:
    try:
        for receipt in receipts:
            if _ERROR in receipt:
                raise UserError(receipt[_ERROR])
        publish(receipts)
    except UserError as error:
        Metrics.counter(NAMESPACE, _ERROR).inc()
        Metrics.string_set(NAMESPACE, _ERROR).add(str(error))
        # Dataflow hands on counters, but no texts; its log keeps this.
        _LOGGER.info("%s", error)
    return {"shards": len(receipts)}


def raise_user_error(result: Any) -> None:
    """Raises the UserError that has kept a finished pipeline from publishing, if there was one."""
    found = result.metrics().query(beam.metrics.MetricsFilter().with_name(_ERROR))
    texts = sorted(text for metric in found["string_sets"] for text in metric.result)
    if texts or any(metric.result for metric in found["counters"]):
        raise UserError(
            texts[0] if texts else "the input is not as it should be; see the job's log"
        )


def count_slices(result: Any, stage: str) -> dict[str, int]:
    """The counters of a finished pipeline, after checking that every slice is accounted for.

    Raises:
        RuntimeError: slices came in that were neither written nor quarantined.
    """
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))
    counts = {c.key.metric.name: int(c.result) for c in counters["counters"]}
    totals = {
        name: counts.get(name, 0)
        for name in ("slices_in", "slices_written", "slices_quarantined", "shards_reused")
    }
    check_complete(
        stage, totals["slices_in"], totals["slices_written"] + totals["slices_quarantined"]
    )
    return totals
