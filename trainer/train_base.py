"""Trains the base model, a CNN over slices, on the examples of the train split.

Reads <data_dir>/train and <data_dir>/validation, writes
<data_dir>/experiments/<model_id>_tf_<loss>_b<batch>_e<epochs>. Uses all visible GPUs, or the CPU.
Start it again with the same --model_id to resume. --folds K trains K models, <model_id>-fold0 and
so on, each without a K-th of the patients.

    python -m trainer.train_base --data_dir DATA --config configs/demo.yaml
"""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from beam_pipelines.errors import exit_with, require
from beam_pipelines.tensorflow_setup import load_tensorflow
from configs import BaseConfig, Config, add_flags, override
from trainer import command, experiment, registry, shard_files
from trainer.experiment import Experiment
from trainer.shard_files import LabelledSplits, ShardFolder

if TYPE_CHECKING:
    from trainer.input_pipeline import TrainingOrder


def main() -> None:
    """Parses flags and trains."""
    parser = command.make_parser("trainer.train_base", __doc__)
    command.add_training_flags(parser)
    add_flags(parser.add_argument_group("settings of the base model"), BaseConfig)
    flags = parser.parse_args()
    config = command.read_config(flags)
    config = dataclasses.replace(config, base=override(config.base, flags))
    train_base(flags.data_dir, config, flags.model_id, flags.export)


def train_base(
    data_dir: str, config: Config, model_id: str | None = None, export: bool = False
) -> list[Experiment]:
    """Trains a base model, or one a fold, or goes on where it was interrupted.

    Args:
        data_dir: the data root.
        config: the settings.
        model_id: names the experiment, or the group of the folds' experiments; None for a new one.
        export: whether to write a SavedModel too.

    Returns:
        The finished experiments: one, or one a fold.

    Raises:
        UserError: data, settings or experiment do not allow it.
    """
    splits = shard_files.read_examples(data_dir)
    config = shard_files.with_settings_of(splits.train, config)
    folds = config.base.folds
    members = [
        dataclasses.replace(splits, train=shard_files.without_fold(splits.train, folds, fold))
        for fold in range(folds)
    ]
    for member in members:
        _check(member.train, config)
    # A member remembers the whole split: what was held out of it follows from the fold's number.
    data: dict[str, Any] = {"data_fingerprints": splits.fingerprints}
    if folds == 1:
        return [_train_one(data_dir, splits, config, model_id, data, export)]
    group = model_id or registry.new_model_id(data_dir, experiment.BASE)
    trained = []
    for fold, member in enumerate(members):
        print(f"group {group}: fold {fold} of {folds}", flush=True)
        arguments = (
            data_dir,
            member,
            config,
            experiment.fold_id(group, fold),
            {**data, "group": group, "fold": fold},
            export,
        )
        # A process each: one that trains a second model keeps the first one's memory, which no
        # call to Keras or the garbage collector gives back (370 MB of a resnet_50).
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            trained.append(pool.submit(_train_one, *arguments).result())
    return trained


def _check(train: ShardFolder, config: Config) -> None:
    """Checks that what a model is trained on has what the settings ask for."""
    base = config.base
    require(
        train.num_labelled >= base.batch_size,
        f"batch_size: received {base.batch_size}, but {train.folder} has only "
        f"{train.num_labelled} labelled slices to train on; give a smaller one",
    )
    positive = train.label_counts["any"]
    require(
        not base.positive_share or 0 < positive < train.num_labelled,
        f"positive_share: received {base.positive_share}, but {positive} of {train.num_labelled} "
        f"labelled slices of {train.folder} are positive; give 0",
    )


def _train_one(
    data_dir: str,
    splits: LabelledSplits,
    config: Config,
    model_id: str | None,
    data: dict[str, Any],
    export: bool,
) -> Experiment:
    """Trains one model.

    Args:
        data_dir: the data root.
        splits: what it is trained on, of a group without a fold, and judged by.
        config: the settings, with those of the examples.
        model_id: of the experiment; None for a new one.
        data: what its record says beside the settings.
        export: whether to write a SavedModel too.
    """
    found = registry.choose_experiment(data_dir, experiment.BASE, model_id, config, data)
    if found.finished:
        print(f"{found.folder}: already trained with these settings")
    else:
        model = _build_model(splits, config)
        experiment.start_experiment(found, config, data)
        print(f"experiment {found.model_id}: {found.folder}", flush=True)
        _train(model, found, splits, config)
    if export:
        _export(found)
    loss = found.record()["validation"]["val_weighted_log_loss"]
    print(f"base model {found.model_id}: validation weighted log loss {loss:.4f}", flush=True)
    return found


def _order(config: Config) -> "TrainingOrder":
    from trainer.input_pipeline import TrainingOrder

    base = config.base
    return TrainingOrder(base.seed, base.batch_size, 0, base.num_epochs, base.shuffle_buffer)


def _build_model(splits: LabelledSplits, config: Config) -> Any:
    load_tensorflow()
    import keras

    from trainer import strategy
    from trainer.base_model import build_base_model
    from trainer.losses import oversampled
    from trainer.optimizer import make_optimizer

    base, examples = config.base, config.examples
    distribution = strategy.make_strategy(xla=base.xla)
    strategy.check_batch_size(base.batch_size, distribution.num_replicas_in_sync)
    strategy.check_precision(base.precision, distribution.num_replicas_in_sync)
    steps = _order(config).steps_per_epoch(splits.train.num_labelled) * base.num_epochs
    priors = shard_files.label_priors(splits.train)
    keras.utils.set_random_seed(base.seed)
    with distribution.scope():
        model = build_base_model(
            base,
            examples.image_size,
            priors if base.prior_bias else None,
            len(examples.channel_windows),
        )
        loss = oversampled(base.loss, base.positive_share, priors["any"])
        model.compile(make_optimizer(base, steps), loss, jit_compile=base.xla)
    return model


def _train(model: Any, found: Experiment, splits: LabelledSplits, config: Config) -> None:
    from trainer import input_pipeline, judging, training

    base, examples = config.base, config.examples

    def make_dataset(order: "TrainingOrder") -> Any:
        return input_pipeline.training_examples(splits.train, examples, base, order)

    judge = judging.SliceJudge(splits.validation, examples, base)
    rules = training.Rules.of(base)
    num_slices = splits.train.num_labelled
    training.train(model, found, make_dataset, _order(config), num_slices, judge, rules)


def _export(found: Experiment) -> None:
    load_tensorflow()
    from trainer import base_model, model_files

    model = model_files.load_model(found.model_file)
    exported = base_model.export_model(model, found.config().base.tta)
    model_files.export(exported, found.path("export"))


if __name__ == "__main__":
    exit_with(main)
