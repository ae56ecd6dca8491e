"""Makes experiments that are finished without having been trained: weights do not change the cost.

python -m benchmarks.experiments --data_dir DATA --backbone small_cnn --image_size 96
python -m benchmarks.experiments --data_dir DATA --embedding_dim 1536 --cell_size 16
"""

import argparse
from pathlib import Path

from beam_pipelines.slice_features import SLICE_FEATURES
from beam_pipelines.tensorflow_setup import load_tensorflow
from configs import BaseConfig, Config, ExamplesConfig, SequenceConfig
from trainer import experiment, model_files, registry
from trainer.experiment import Experiment

BASE_ID, LSTM_ID = "base1", "lstm1"
_FINGERPRINTS = {"train": "examples-train", "validation": "examples-validation"}


def write_base_experiment(data_dir: Path, config: Config) -> Experiment:
    """A base experiment without a model."""
    return _write(data_dir, experiment.BASE, BASE_ID, config, {})


def write_sequence_experiment(data_dir: Path, config: Config) -> Experiment:
    """A sequence experiment without a model, of the base experiment."""
    return _write(data_dir, experiment.LSTM, LSTM_ID, config, {"base_model_id": BASE_ID})


def _write(
    data_dir: Path, kind: str, model_id: str, config: Config, more: dict[str, str]
) -> Experiment:
    data = {"data_fingerprints": _FINGERPRINTS, **more}
    made = registry.choose_experiment(str(data_dir), kind, model_id, config, data)
    experiment.start_experiment(made, config, data)
    made.update(status=experiment.FINISHED)
    return made


def save_base_model(data_dir: Path, backbone: str, image_size: int) -> None:
    """A base experiment with a model of random weights."""
    load_tensorflow()
    from trainer.base_model import build_base_model

    base = BaseConfig(pretrained_model=backbone, pretrained_weights="none", tta="none")
    made = write_base_experiment(
        data_dir,
        Config(ExamplesConfig(image_size=image_size, channels="windows", crop="none"), base),
    )
    model_files.save_model(build_base_model(base, image_size), made.model_file)


def save_sequence_model(data_dir: Path, embedding_dim: int, cell_size: int) -> None:
    """A sequence experiment with a model of one small layer, and its base experiment."""
    load_tensorflow()
    from trainer.sequence_model import build_sequence_model

    config = Config(sequence=SequenceConfig(num_layers=1, cell_size=cell_size))
    write_base_experiment(data_dir, config)
    made = write_sequence_experiment(data_dir, config)
    model = build_sequence_model(config.sequence, embedding_dim, len(SLICE_FEATURES))
    model_files.save_model(model, made.model_file)


def main() -> None:
    """Makes one experiment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--backbone", help="of a base experiment")
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--embedding_dim", type=int, help="of a sequence experiment")
    parser.add_argument("--cell_size", type=int, default=16)
    args = parser.parse_args()
    if args.backbone:
        save_base_model(args.data_dir, args.backbone, args.image_size)
    else:
        save_sequence_model(args.data_dir, args.embedding_dim, args.cell_size)


if __name__ == "__main__":
    main()
