"""YAML to frozen dataclasses and back; unknown keys and wrong types are refused."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml

from beam_pipelines import storage
from beam_pipelines.errors import UserError
from configs.sections import Config

T = TypeVar("T")


def load_config(path: str | None) -> Config:
    """Reads a config file; every key that it leaves out has its default.

    Args:
        path: a YAML file, local or in a bucket; None for the defaults.

    Raises:
        UserError: the file is missing or no YAML, or a key or value is not known.
    """
    if path is None:
        return Config()
    try:
        parsed = yaml.safe_load(storage.read_bytes(path))
    except FileNotFoundError:
        raise UserError(f"config {path}: no such file; see configs/ for those that exist") from None
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise UserError(f"config {path}: not valid YAML: {where}") from None
    return build(Config, {} if parsed is None else parsed, path)


def build(kind: type[T], value: Any, where: str) -> T:
    """Builds a dataclass from a mapping, recursively.

    Raises:
        UserError: names the place, the value received and what would be right.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: received {value!r}; give a mapping of settings")
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in value:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; known keys: {', '.join(known)}")
    hints = typing.get_type_hints(kind)
    parsed = {key: _convert(hints[key], value[key], f"{where}: {key}") for key in value}
    try:
        return kind(**parsed)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: received {value!r}; give a list")
        item = typing.get_args(kind)[0]
        return tuple(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 1e-4, without a point, as text.
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where}: received {value!r}; give a {kind.__name__}")
    return value


def to_mapping(config: Any) -> Any:
    """A config as plain dicts, lists and numbers."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_mapping(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_mapping(item) for item in config]
    return config


def to_yaml(config: Any) -> str:
    """A config as YAML that `load_config` reads back to an equal config."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False)


def add_flags(parser: Any, kind: type, names: tuple[str, ...] | None = None) -> None:
    """Adds a flag for each plain setting of a section; its default is the config's value.

    Args:
        parser: an argparse parser or group.
        kind: the section's dataclass.
        names: which settings; all whose value is a number, text or truth value when None.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        kind_of_value = hints[field.name]
        if names is not None and field.name not in names:
            continue
        if kind_of_value not in (int, float, str, bool):
            continue
        text = f"{field.metadata['help']} (default: {field.default})".replace("%", "%%")
        options: dict[str, Any] = {"default": None, "help": text}
        if kind_of_value is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind_of_value
            options["choices"] = field.metadata["choices"] or None
            options["metavar"] = None if options["choices"] else field.name.upper()
        parser.add_argument(f"--{field.name}", **options)


def override(section: T, flags: argparse.Namespace | types.SimpleNamespace) -> T:
    """A copy of `section` with the settings that were given as flags."""
    names = [field.name for field in dataclasses.fields(section)]  # type: ignore[arg-type]
    given = {n: getattr(flags, n) for n in names if getattr(flags, n, None) is not None}
    return dataclasses.replace(section, **given)  # type: ignore[type-var]
