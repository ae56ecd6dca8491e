"""What a model takes by itself, on arrays in memory, in a process that does nothing else.

    python -m benchmarks.model_time --experiment DIR --examples DATA --images 500 2500
    python -m benchmarks.model_time --experiment DIR --sequences 3500

Prints `{"seconds_0": 1.5, ...}`, one for each size; start, load and trace are left out.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from beam_pipelines import schema
from beam_pipelines.tensorflow_setup import load_tensorflow
from trainer import experiment, inference, model_files, registry
from trainer.experiment import Experiment

# Those of `trainer.inference`.
_BATCH_SIZE, _SEQUENCES_A_BATCH = 64, 32


def read_images(data_dir: Path, count: int, image_size: int) -> np.ndarray:
    """The first images of all splits, decoded, again from the start where there are too few.

    Returns:
        uint8 (count, image_size, image_size, 3).
    """
    import tensorflow as tf

    paths = map(str, sorted(data_dir.glob("t*/shard-*.tfrecord")))
    records = tf.data.TFRecordDataset(list(paths)).repeat().take(count)
    parsed = records.map(lambda record: schema.parse_example(record, image_size)["image"])
    return np.stack(list(parsed.as_numpy_iterator()))


def predict_images(found: Experiment, data_dir: Path, counts: list[int]) -> list[float]:
    """Seconds of Keras's own `model.predict` on images in memory, for embeddings and logits."""
    from trainer.base_model import embedding_model

    model = embedding_model(model_files.load_model(found.model_file))
    images = read_images(data_dir, max(counts), model.input_shape[1])

    def run(count: int) -> None:
        model.predict(images[:count], batch_size=_BATCH_SIZE, verbose=0)

    run(_BATCH_SIZE)
    return [_seconds(functools.partial(run, count)) for count in counts]


def score_sequences(found: Experiment, count: int) -> float:
    """Seconds of a sequence model for so many sequences, all of them the same full batch."""
    model = model_files.load_model(found.model_file)
    size, length = _SEQUENCES_A_BATCH, found.config().sequence.max_to_keep
    scorer = inference.SequenceScorer(model, length, size)
    rng = np.random.default_rng(1)
    batch: dict[str, Any] = {
        name: rng.standard_normal((size, length, *tensor.shape[2:]), dtype=np.float32)
        for name, tensor in model.input.items()
    }
    batch["mask"] = np.ones((size, length), np.uint8)
    scorer(batch)

    def run() -> None:
        for _ in range(-(-count // size)):
            scorer(batch)

    return _seconds(run)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def main() -> None:
    """Measures one model and prints the seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_time", description=__doc__)
    parser.add_argument("--experiment", type=Path, required=True, help="folder of an experiment")
    parser.add_argument("--examples", type=Path, help="data root of the images")
    parser.add_argument("--images", type=int, nargs="+")
    parser.add_argument("--sequences", type=int)
    args = parser.parse_args()
    load_tensorflow()
    kind = experiment.BASE if args.images else experiment.LSTM
    found = registry.find_experiment("", kind, str(args.experiment))
    if args.images:
        seconds = predict_images(found, args.examples, args.images)
    else:
        seconds = [score_sequences(found, args.sequences)]
    print(json.dumps({f"seconds_{i}": value for i, value in enumerate(seconds)}))


if __name__ == "__main__":
    main()
