"""What the mains' command lines share."""

import argparse

from beam_pipelines import options
from configs import Config, load_config


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every main has; `description` is the main's docstring."""
    parser = options.make_parser(module, description or "", beam=False)
    options.add_data_dir(parser)
    return parser


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the mains that train."""
    options.add_config(parser)
    parser.add_argument(
        "--model_id",
        help="names the experiment; one that was started before with the same settings is "
        "resumed (default: the unix time)",
    )
    parser.add_argument(
        "--export",
        action="store_true",
        help="also write a TensorFlow SavedModel into the experiment's folder export/",
    )


def read_config(flags: argparse.Namespace) -> Config:
    """The config that `--config` names, or the defaults."""
    return load_config(flags.config)
