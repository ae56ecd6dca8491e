"""What is fitted on the train split with tensorflow-transform, and how it is applied.

The graph scales slice features to mean 0 and variance 1 and holds the label priors. It is fitted
once, on the train split that the base model was trained on, saved in the base experiment and loaded
for every other split and data root:

    experiments/<id>/transform/graph/            TFT's own output folder
    experiments/<id>/transform/label_priors.json share of positive slices of each subtype

The second file is written last: the transform is complete when it is there.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from beam_pipelines import storage
from beam_pipelines.layout import LABEL_PRIORS
from beam_pipelines.schema import NUM_LABELS, SUBTYPES
from beam_pipelines.slice_features import SLICE_FEATURES
from beam_pipelines.tensorflow_setup import load_tensorflow

_LABEL, _LABELLED, _PRIOR = "label", "labelled", "label_prior"


def to_record_batch(
    features: dict[str, np.ndarray], labels: np.ndarray, labelled: np.ndarray
) -> pa.RecordBatch:
    """The Arrow form that tensorflow-transform reads.

    Args:
        features: float32 (num_slices,) by name.
        labels: float32 (num_slices, 6).
        labelled: float32 (num_slices,).
    """

    def column(values: np.ndarray, width: int) -> pa.Array:
        flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, width).cast(pa.large_list(pa.float32()))

    names = [*SLICE_FEATURES, _LABELLED, _LABEL]
    columns = [column(features[name], 1) for name in SLICE_FEATURES]
    columns += [column(labelled, 1), column(labels, NUM_LABELS)]
    return pa.RecordBatch.from_arrays(columns, names=names)


def preprocess(inputs: dict[str, Any]) -> dict[str, Any]:
    """TFT's preprocessing function: what is fitted, and the graph that applies it."""
    import tensorflow as tf
    import tensorflow_transform as tft

    outputs = {name: tft.scale_to_z_score(inputs[name]) for name in SLICE_FEATURES}
    labelled = inputs[_LABELLED]
    positives = tft.mean(inputs[_LABEL] * labelled[:, tf.newaxis], reduce_instance_dims=False)
    share = tf.math.divide_no_nan(positives, tft.mean(labelled))
    outputs[_PRIOR] = tf.zeros_like(inputs[_LABEL]) + share
    return outputs


def fit(batches: Any, folder: str) -> Any:
    """Adds the analysis to a pipeline.

    Args:
        batches: PCollection of the train split's record batches.
        folder: where TFT writes its graph; must not exist.
    """
    load_tensorflow()
    import tensorflow_transform.beam as tft_beam
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

    def tensor(name: str) -> Any:
        shape = f"dim {{ size: {NUM_LABELS} }}" if name == _LABEL else ""
        text = f'dense_tensor {{ column_name: "{name}" shape {{ {shape} }} }}'
        return text_format.Parse(text, schema_pb2.TensorRepresentation())

    empty = to_record_batch(
        {name: np.empty(0) for name in SLICE_FEATURES}, np.empty((0, NUM_LABELS)), np.empty(0)
    )
    config = TensorAdapterConfig(empty.schema, {name: tensor(name) for name in empty.schema.names})
    with tft_beam.Context(temp_dir=tempfile.mkdtemp(prefix="transform-")):
        analysed = (batches, config) | "AnalyzeSlices" >> tft_beam.AnalyzeDataset(preprocess)
        return analysed | "WriteTransform" >> tft_beam.WriteTransformFn(folder)


@dataclass(frozen=True)
class TransformFolder:
    """The transform of a base experiment.

    Attributes:
        folder: `experiments/<id>/transform`.
    """

    folder: str

    @property
    def graph(self) -> str:
        """TFT's output folder."""
        return storage.join(self.folder, "graph")

    @property
    def priors_file(self) -> str:
        """The label priors; there when the transform is complete."""
        return storage.join(self.folder, LABEL_PRIORS)

    @property
    def complete(self) -> bool:
        """Whether the transform has been fitted and saved."""
        return storage.exists(self.priors_file)

    def clear(self) -> None:
        """Removes what a killed fit has left behind."""
        fs, name = storage.filesystem(self.graph)
        if fs.exists(name):
            fs.rm(name, recursive=True)

    def finish(self) -> dict[str, float]:
        """Writes the label priors of a graph that has just been fitted, and returns them."""
        zeros = {name: np.zeros(1, np.float32) for name in SLICE_FEATURES}
        prior = SliceTransform(self)(zeros, with_prior=True)[0, len(SLICE_FEATURES) :]
        priors = dict(zip(SUBTYPES, map(float, prior), strict=True))
        storage.write_json(self.priors_file, priors)
        return priors


class SliceTransform:
    """Applies a saved transform."""

    def __init__(self, folder: TransformFolder) -> None:
        load_tensorflow()
        import tensorflow_transform as tft

        self._output = tft.TFTransformOutput(folder.graph)

    def __call__(self, features: dict[str, np.ndarray], *, with_prior: bool = False) -> np.ndarray:
        """Scales slice features.

        Args:
            features: float32 (num_slices,) for each of SLICE_FEATURES.
            with_prior: appends the label priors, six columns.

        Returns:
            float32 (num_slices, num_features), columns in the order of SLICE_FEATURES.
        """
        import tensorflow as tf

        count = len(features[SLICE_FEATURES[0]])
        raw = {name: tf.constant(features[name], tf.float32) for name in SLICE_FEATURES}
        raw[_LABELLED] = tf.zeros([count])
        raw[_LABEL] = tf.zeros([count, NUM_LABELS])
        scaled = self._output.transform_raw_features(raw)
        columns = [scaled[name].numpy()[:, np.newaxis] for name in SLICE_FEATURES]
        if with_prior:
            columns.append(scaled[_PRIOR].numpy())
        return np.concatenate(columns, axis=1)


def concatenate(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Appends the features of several series."""
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in SLICE_FEATURES}
