import argparse
import dataclasses
from pathlib import Path

import pytest

import configs
from beam_pipelines.errors import UserError
from configs import (
    BaseConfig,
    Config,
    ExamplesConfig,
    SequenceConfig,
    Window,
    add_flags,
    load_config,
    override,
    to_yaml,
)

FOLDER = Path(configs.__file__).parent
SHIPPED = sorted(FOLDER.glob("*.yaml"))


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load_config(str(path))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_load_and_round_trip(path: Path, tmp_path: Path):
    config = load_config(str(path))
    assert load(tmp_path, to_yaml(config)) == config


def test_default_yaml_holds_the_defaults():
    assert load_config(str(FOLDER / "default.yaml")) == Config() == load_config(None)


def test_every_shipped_file_is_found():
    assert {"default.yaml", "demo.yaml"} <= {path.name for path in SHIPPED}


def test_defaults_of_the_old_commands():
    config = Config()
    assert config.base == dataclasses.replace(
        config.base, batch_size=32, num_epochs=5, lr=1e-4, loss="weighted_loss"
    )
    assert config.sequence == dataclasses.replace(
        config.sequence, batch_size=32, num_epochs=10, num_layers=2, cell_size=256, lr=1e-4
    )
    assert (config.sequence.max_to_keep, config.examples.val_ratio) == (60, 0.1)
    assert config.sequence.loss == "masked_weighted_loss"


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path):
    config = load(tmp_path, "base: {batch_size: 8}")
    assert config == Config(base=BaseConfig(batch_size=8))
    assert load(tmp_path, "") == Config()
    assert load(tmp_path, "# nothing") == Config()


@pytest.mark.parametrize(
    ("text", "lr"), [("1e-3", 1e-3), ("1.0e-3", 1e-3), ("1", 1.0), ("'0.5'", 0.5)]
)
def test_numbers_as_people_write_them(tmp_path: Path, text: str, lr: float):
    found = load(tmp_path, f"base: {{lr: {text}}}").base.lr
    assert (found, type(found)) == (lr, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bse: {}", "unknown key 'bse'; known keys: examples, base, sequence"),
        (
            "sequence: {max_to_kep: 3}",
            "sequence: unknown key 'max_to_kep'; known keys: max_to_keep, batch_size, num_epochs, "
            "num_layers, cell, cell_size, use_embeddings, use_differences, use_logits, "
            "use_slice_features, residual, lr, lr_schedule, warmup_ratio, weight_decay, ema_decay, "
            "clip_norm, dropout_rate, loss, patience, keep_best, seed",
        ),
        ("base: {batch_size: many}", "base: batch_size: received 'many'; give a int"),
        ("base: {batch_size: 2.5}", "base: batch_size: received 2.5; give a int"),
        ("base: {batch_size: true}", "base: batch_size: received True; give a int"),
        ("base: {lr: fast}", "base: lr: received 'fast'; give a float"),
        ("base: {lr: false}", "base: lr: received False; give a float"),
        ("base: {augment: 1}", "base: augment: received 1; give a bool"),
        ("base: {loss: 3}", "base: loss: received 3; give a str"),
        (
            "base: {loss: l2}",
            "base: BaseConfig.loss: received 'l2'; give one of bin_loss, weighted_loss",
        ),
        (
            "base: {batch_size: 0}",
            "base: BaseConfig.batch_size: received 0; give a number at least 1",
        ),
        ("base: {lr: 0}", "base: BaseConfig.lr: received 0.0; give a number above 0"),
        (
            "examples: {val_ratio: 1}",
            "examples: ExamplesConfig.val_ratio: received 1.0; give a number below 1",
        ),
        (
            "examples: {windows: [{level: 40, width: 80}]}",
            "examples: ExamplesConfig.windows: received 1 windows; give three, one for each "
            "channel of the image",
        ),
        ("examples: {windows: brain}", "examples: windows: received 'brain'; give a list"),
        (
            "examples: {windows: [brain]}",
            "examples: windows[0]: received 'brain'; give a mapping of settings",
        ),
        (
            "examples: {windows: [{level: 40, width: 0}]}",
            "examples: windows[0]: Window.width: received 0.0; give a number above 0",
        ),
        (
            "examples: {windows: [{level: 40}]}",
            "examples: windows[0]: Window.__init__() missing 1 required positional argument: "
            "'width'",
        ),
        ("base: 3", "base: received 3; give a mapping of settings"),
        ("base:", "base: received None; give a mapping of settings"),
        ("- base", "received ['base']; give a mapping of settings"),
        ("3: 4", "unknown key 3; known keys: examples, base, sequence"),
    ],
)
def test_messages_word_for_word(tmp_path: Path, text: str, message: str):
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert str(error.value) == f"{tmp_path}/c.yaml: {message}"


def test_no_yaml_is_refused_in_one_line(tmp_path: Path):
    for text in ("base: {", "a:\n\t- b", "a: b: c"):
        with pytest.raises(UserError, match=r"c\.yaml: not valid YAML: ") as error:
            load(tmp_path, text)
        assert "\n" not in str(error.value)


def test_yaml_runs_no_code(tmp_path: Path):
    with pytest.raises(UserError, match="not valid YAML"):
        load(tmp_path, f"base: !!python/object/apply:os.mkdir ['{tmp_path}/made']")
    assert not (tmp_path / "made").exists()


def test_a_file_that_is_not_there():
    with pytest.raises(UserError) as error:
        load_config("absent.yaml")
    assert str(error.value) == "config absent.yaml: no such file; see configs/ for those that exist"


def parse(argv: list[str], *sections: type) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for section in sections:
        add_flags(parser, section)
    return parser.parse_args(argv)


def test_flags_override_the_file(tmp_path: Path):
    config = load(tmp_path, "base: {batch_size: 8, num_epochs: 3, augment: false}")
    args = parse(["--num_epochs", "7", "--lr", "1e-2", "--loss", "weighted_loss"], BaseConfig)
    expected = dataclasses.replace(config.base, num_epochs=7, lr=0.01, loss="weighted_loss")
    assert override(config.base, args) == expected


def test_flags_that_are_not_given_change_nothing():
    for section in (ExamplesConfig, BaseConfig, SequenceConfig):
        assert override(section(), parse([], section)) == section()


def test_truth_values_can_be_switched_off():
    assert not override(BaseConfig(), parse(["--no-augment"], BaseConfig)).augment
    assert override(BaseConfig(augment=False), parse(["--augment"], BaseConfig)).augment


def test_flags_are_checked_as_the_file_is():
    with pytest.raises(UserError, match=r"ExamplesConfig\.val_ratio: received 1\.5; give a number"):
        override(ExamplesConfig(), parse(["--val_ratio", "1.5"], ExamplesConfig))


def test_only_the_flags_that_are_asked_for(capsys: pytest.CaptureFixture[str]):
    parser = argparse.ArgumentParser()
    add_flags(parser, SequenceConfig, ("max_to_keep",))
    assert vars(parser.parse_args(["--max_to_keep", "5"])) == {"max_to_keep": 5}
    assert "slices in a sequence" in parser.format_help()


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Window(40, 80).level = 3  # type: ignore[misc]
