"""What the mains' command lines share."""

import argparse

from configs import Config, load_config


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every main has; `description` is the main's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir", required=True, help="the data root, a local folder or gs://bucket/prefix"
    )
    return parser


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the mains that train."""
    parser.add_argument("--config", help="a YAML file of settings, see configs/; flags override it")
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
