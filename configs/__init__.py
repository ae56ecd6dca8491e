"""Settings: YAML files beside this module, read into frozen dataclasses.

    config = load_config("configs/demo.yaml")
    config.base.batch_size

Every setting is declared once, in `configs.sections`, with its default, its range and its help;
the mains build their flags from it. A flag that is given overrides the file.
"""

from configs.loader import add_flags, load_config, override, to_yaml
from configs.sections import (
    BaseConfig,
    Config,
    ExamplesConfig,
    SequenceConfig,
    Window,
)

__all__ = [
    "BaseConfig",
    "Config",
    "ExamplesConfig",
    "SequenceConfig",
    "Window",
    "add_flags",
    "load_config",
    "override",
    "to_yaml",
]
