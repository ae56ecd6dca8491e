"""The PTransforms that every pipeline is made of; wiring only.

A pipeline's work is a *builder*: a small picklable object that makes one shard from one task and
returns its receipt. Builders know nothing of Beam and are tested without it.

A worker's UserError is hidden from Beam, which would try again and print pages of traceback: it
takes the place of the receipt, nothing is published, and `raise_user_error` raises it when the
pipeline has finished.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_pipelines.errors import UserError
from beam_pipelines.shards import Receipt, check_complete

NAMESPACE = "slices"
_ERROR = "user_error"
_LOGGER = logging.getLogger(__name__)


class Builder(Protocol):
    """Makes shards; one instance a worker thread."""

    def setup(self) -> None:
        """Opens what all tasks need: the archive, a model."""

    def build(self, task: Any) -> Receipt:
        """Makes one shard.

        Returns:
            Its receipt, with `slices_in` and `num_slices` (those written), `quarantined`, a list
            of the others, and `reused` where the shard was there already.
        """


class _BuildShard(beam.DoFn):
    """Runs a builder and counts what it did."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._counters = {
            name: Metrics.counter(NAMESPACE, name)
            for name in ("slices_in", "slices_written", "slices_quarantined", "shards_reused")
        }

    def setup(self) -> None:
        self._builder.setup()

    def process(self, task: Any) -> Iterable[Receipt]:
        try:
            receipt = self._builder.build(task)
        except UserError as error:
            yield {_ERROR: str(error)}
            return
        self._counters["slices_in"].inc(receipt["slices_in"])
        self._counters["slices_written"].inc(receipt["num_slices"])
        self._counters["slices_quarantined"].inc(len(receipt["quarantined"]))
        self._counters["shards_reused"].inc(int(receipt.get("reused", False)))
        yield receipt


@dataclass
class BuildShards(beam.PTransform):
    """Makes a shard from each task: tasks in, receipts out. Tasks are small; pixels stay inside."""

    builder: Builder

    def expand(self, tasks: Any) -> Any:
        """Applies the builder to every task."""
        return tasks | "BuildShard" >> beam.ParDo(_BuildShard(self.builder))


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
