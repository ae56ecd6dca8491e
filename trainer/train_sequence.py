"""Trains the sequence model, a recurrent network over a series, on a base model's embeddings.

Reads <data_dir>/sequences/<base_model_id>/train and validation, writes
<data_dir>/experiments/lstm/<model_id>_b<batch>_e<epochs>_l<layers>_cs<cell>. Of a group of folds
it reads the sequences of all members: one sequence model is trained on the train studies of all,
and judged by the mean of what it says of each member's validation sequences. Uses all visible GPUs,
or the CPU. Start it again with the same --model_id to resume.

    python -m trainer.train_sequence --data_dir DATA --config configs/demo.yaml
"""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from beam_pipelines.errors import exit_with, require
from beam_pipelines.tensorflow_setup import load_tensorflow
from configs import Config, SequenceConfig, add_flags, override
from trainer import command, experiment, group_files, registry, shard_files
from trainer.experiment import Experiment
from trainer.shard_files import LabelledSplits

if TYPE_CHECKING:
    from trainer.input_pipeline import TrainingOrder


def main() -> None:
    """Parses flags and trains."""
    parser = command.make_parser("trainer.train_sequence", __doc__)
    command.add_training_flags(parser)
    parser.add_argument(
        "--base_model_id",
        help="the base experiment or group whose sequences to use (default: the only one there is)",
    )
    group = parser.add_argument_group("settings of the sequence model")
    add_flags(group, SequenceConfig)
    group.add_argument(
        "--val_ratio",
        type=float,
        help="only a check: patients were split by build_examples, and a share that differs from "
        "what it used is an error",
    )
    flags = parser.parse_args()
    config = command.read_config(flags)
    config = dataclasses.replace(config, sequence=override(config.sequence, flags))
    base_model_id = shard_files.choose_base_model_id(flags.data_dir, flags.base_model_id)
    _check_flags(flags, base_model_id)
    train_sequence(flags.data_dir, config, base_model_id, flags.model_id, flags.export)


def _check_flags(flags: argparse.Namespace, base_model_id: str) -> None:
    """Refuses flags that the shards have already settled otherwise."""
    if flags.val_ratio is not None:
        examples = shard_files.read_examples(flags.data_dir)
        used = examples.validation.settings["val_ratio"]
        require(
            flags.val_ratio == used,
            f"val_ratio: received {flags.val_ratio}, but {examples.validation.folder} was made "
            f"with {used}; patients are split by build_examples: run "
            f"`{shard_files.BUILD_EXAMPLES} --val_ratio {flags.val_ratio}` and the stages after "
            "it again, or leave the flag out",
        )
    if flags.max_to_keep is not None:
        sequences = _read(flags.data_dir, base_model_id)[1]
        used = sequences.train.settings["max_to_keep"]
        require(
            flags.max_to_keep == used,
            f"max_to_keep: received {flags.max_to_keep}, but {sequences.train.folder} was made "
            f"with {used}; run `{shard_files.BUILD_SEQUENCES} --max_to_keep "
            f"{flags.max_to_keep}` again, or leave the flag out",
        )


def _read(data_dir: str, base_model_id: str) -> tuple[list[Experiment], LabelledSplits]:
    """The base experiments that an id stands for, and the sequences of all of them."""
    bases = registry.find_base_models(data_dir, base_model_id)
    ids = [base.model_id for base in bases]
    return bases, group_files.read_group_sequences(data_dir, ids)


def train_sequence(
    data_dir: str,
    config: Config,
    base_model_id: str,
    model_id: str | None = None,
    export: bool = False,
) -> Experiment:
    """Trains a sequence model, or goes on where it was interrupted.

    Args:
        data_dir: the data root.
        config: the settings.
        base_model_id: the base model or group whose sequences to use.
        model_id: names the experiment; None for a new one.
        export: whether to write a SavedModel too.

    Returns:
        The finished experiment.

    Raises:
        UserError: data, settings or experiment do not allow it.
    """
    bases, splits = _read(data_dir, base_model_id)
    group_files.check_splits(splits, bases)
    config = shard_files.with_settings_of(splits.train, config)
    require(
        splits.train.num_sequences >= config.sequence.batch_size,
        f"batch_size: received {config.sequence.batch_size}, but {splits.train.folder} has only "
        f"{splits.train.num_sequences} sequences; give a smaller one",
    )
    trained = bases[0].config()
    config = dataclasses.replace(config, examples=trained.examples, base=trained.base)
    load_tensorflow()
    from trainer import strategy

    distribution = strategy.make_strategy()
    strategy.check_batch_size(config.sequence.batch_size, distribution.num_replicas_in_sync)
    data = {
        "data_fingerprints": splits.fingerprints,
        "base_model_id": registry.group_name(bases),
        "base_model_ids": [base.model_id for base in bases],
    }
    found = registry.choose_experiment(data_dir, experiment.LSTM, model_id, config, data)
    if found.finished:
        print(f"{found.folder}: already trained with these settings")
    else:
        model = _build_model(splits, config, distribution, len(bases))
        experiment.start_experiment(found, config, data)
        print(f"experiment {found.model_id}: {found.folder}", flush=True)
        _train(model, found, splits, config)
    if export:
        _export(found)
    loss = found.record()["validation"]["val_weighted_log_loss"]
    print(f"sequence model {found.model_id}: validation weighted log loss {loss:.4f}")
    return found


def _order(config: Config) -> "TrainingOrder":
    from trainer.input_pipeline import SEQUENCE_SHUFFLE_BUFFER, TrainingOrder

    lstm = config.sequence
    return TrainingOrder(lstm.seed, lstm.batch_size, 0, lstm.num_epochs, SEQUENCE_SHUFFLE_BUFFER)


def _build_model(splits: LabelledSplits, config: Config, distribution: Any, folds: int) -> Any:
    import keras

    from trainer.losses import LOSSES
    from trainer.optimizer import make_optimizer
    from trainer.sequence_model import build_sequence_model

    lstm, made = config.sequence, splits.train.settings
    steps = _order(config).steps_per_epoch(splits.train.num_sequences) * lstm.num_epochs
    keras.utils.set_random_seed(lstm.seed)
    with distribution.scope():
        model = build_sequence_model(lstm, made["embedding_dim"], made["num_slice_features"], folds)
        model.compile(make_optimizer(lstm, steps), LOSSES[lstm.loss], jit_compile=False)
    return model


def _train(model: Any, found: Experiment, splits: LabelledSplits, config: Config) -> None:
    from trainer import input_pipeline, judging, training

    def make_dataset(order: "TrainingOrder") -> Any:
        return input_pipeline.training_sequences(splits.train, order)

    lstm = config.sequence
    judge = judging.SequenceJudge(splits.validation, lstm.batch_size)
    rules = training.Rules.of(lstm)
    num_sequences = splits.train.num_sequences
    training.train(model, found, make_dataset, _order(config), num_sequences, judge, rules)


def _export(found: Experiment) -> None:
    from trainer import model_files, sequence_model

    model = model_files.load_model(found.model_file)
    model_files.export(sequence_model.export_model(model), found.path("export"))


if __name__ == "__main__":
    exit_with(main)
