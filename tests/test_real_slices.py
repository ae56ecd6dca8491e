"""Checks on real slices, where there are any: they may not be copied into the project."""

import io
import itertools
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from beam_pipelines import build_examples, extract_metadata, process_labels, schema, tfrecord
from beam_pipelines.archive import open_archive
from beam_pipelines.head_box import crop_box, find_head
from beam_pipelines.layout import SPLITS, DataLayout
from beam_pipelines.pixels import AIR, decode_hounsfield, read_stored, to_hounsfield
from beam_pipelines.quarantine import read_quarantine
from beam_pipelines.series import group_series
from beam_pipelines.slice_references import read_references

_BESIDE = Path(__file__).parents[2] / "shared" / "real_slices" / "rsna_sample.zip"
SAMPLE = Path(os.environ.get("RSNA_SAMPLE", _BESIDE))
pytestmark = pytest.mark.skipif(
    not SAMPLE.is_file(), reason="no real slices; name a zip of some with RSNA_SAMPLE"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("real")
    flags = ["--archive", str(SAMPLE), "--data_dir", str(data_dir)]
    extract_metadata.run([*flags, "--max_bad_fraction=0"])
    process_labels.run(flags)
    build_examples.run([*flags, "--max_bad_fraction=0", "--image_size=64"])
    return data_dir


def items(data_dir: Path) -> list[schema.Slice]:
    found = []
    for split in SPLITS:
        for path in sorted((data_dir / split).glob("*.tfrecord")):
            with path.open("rb") as file:
                records = tfrecord.read_records(file, str(path))
                found += [schema.decode_slice(data)[0] for _, data in records]
    return found


def test_every_slice_has_a_row_and_an_example(data_dir: Path):
    layout = DataLayout(str(data_dir))
    references = {s: list(read_references(layout, s)) for s in ("train", "test")}
    assert {subset: len(found) for subset, found in references.items()} == {"train": 36, "test": 32}
    ids = {r.image_id for found in references.values() for r in found}
    assert len(items(data_dir)) == 68
    assert {item.image_id for item in items(data_dir)} == ids
    for stage in ("extract_metadata", "build_examples"):
        assert read_quarantine(layout, stage) == []


def test_series_are_in_anatomical_order(data_dir: Path):
    series = [
        list(group)
        for _, group in itertools.groupby(items(data_dir), key=lambda i: i.series_instance_uid)
    ]
    assert sorted(map(len, series)) == [32, 36]
    for group in series:
        assert [item.index for item in group] == list(range(len(group)))
        assert (np.diff([item.position_mm for item in group]) > 0).all()


def test_the_train_series_is_labelled(data_dir: Path):
    labels = [item.label for item in items(data_dir) if item.label is not None]
    assert len(labels) == 36
    positive = dict(zip(schema.SUBTYPES, np.sum(labels, axis=0), strict=True))
    assert positive["intraparenchymal"] > 0
    assert positive["intraventricular"] > 0
    assert positive["any"] == sum(any(label) for label in labels)


def test_heads_are_found_without_what_they_lie_on(data_dir: Path):
    archive, layout = open_archive(str(SAMPLE)), DataLayout(str(data_dir))
    sides = {}
    for subset in ("train", "test"):
        (series,) = group_series(read_references(layout, subset))
        slices = [read_stored(archive.read(r.member)) for r in series]
        heads = [find_head(*s) for s in slices]
        box = crop_box(heads, {stored.shape for stored, _ in slices})
        assert box is not None
        sides[subset] = box.bottom - box.top
        for head, (stored, rescale) in zip(heads, slices, strict=True):
            hounsfield = to_hounsfield(stored, rescale)
            brain = (hounsfield > 0) & (hounsfield < 80)
            assert box.of(brain).sum() > 0.98 * brain.sum()
            # The sheet below the test series' head goes from side to side.
            assert head is None or max(np.subtract(head[2:], head[:2])) < 475
    # The train series' nose and occiput touch the edges: nothing to crop.
    assert sides["train"] == 512
    assert 420 < sides["test"] < 480


def test_pixels_are_pydicoms():
    with zipfile.ZipFile(SAMPLE) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
        for name in names[::7]:
            data = archive.read(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = pydicom.dcmread(io.BytesIO(data))
                stored = dataset.pixel_array.astype(np.int32)
            expected = stored * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)
            expected[stored == -2000] = AIR
            np.testing.assert_array_equal(decode_hounsfield(data), expected, err_msg=name)


def test_the_loss_can_be_driven_down_on_the_labelled_series(data_dir: Path):
    """Real pixels, labels and their order line up; it says nothing about skill."""
    import keras

    from configs import BaseConfig, ExamplesConfig
    from trainer import shard_files
    from trainer.base_model import build_base_model
    from trainer.input_pipeline import TrainingOrder, training_examples
    from trainer.losses import weighted_loss
    from trainer.optimizer import make_optimizer

    folders = [shard_files.read_folder(str(data_dir / s), "") for s in ("train", "validation")]
    (folder,) = [folder for folder in folders if folder.num_labelled == 36]
    base = BaseConfig(
        pretrained_model="small_cnn", pretrained_weights="none", lr=3e-3, dropout_rate=0.0,
        augment=False, batch_size=18, positive_share=0.0,
    )  # fmt: skip
    examples = ExamplesConfig(image_size=64)
    order = TrainingOrder(0, base.batch_size, 0, 40, 64)
    dataset = training_examples(folder, examples, base, order)
    keras.utils.set_random_seed(0)
    num_channels = len(examples.channel_windows)
    model = build_base_model(base, 64, shard_files.label_priors(folder), num_channels)
    model.compile(make_optimizer(base, 80), weighted_loss)
    fitted = model.fit(dataset, epochs=40, steps_per_epoch=2, shuffle=False, verbose=0)
    losses = fitted.history["loss"]
    assert losses[0] > 0.1
    assert losses[-1] < 0.02 < losses[0] / 5
