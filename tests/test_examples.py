import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from synthetic import make_dicom, metadata_row, random_hounsfield, write_zip

from beam_pipelines.archive import open_archive
from beam_pipelines.dicom import BadSliceError
from beam_pipelines.examples import ExampleBuilder, SliceEncoder
from beam_pipelines.images import resize, to_square
from beam_pipelines.series import ShardKey
from beam_pipelines.slice_references import pack_rows
from beam_pipelines.windowing import Windowing
from configs import ExamplesConfig


@pytest.mark.parametrize("shape", [(32, 40), (40, 32), (20, 20)])
def test_an_image_is_windowed_squared_and_resized(shape: tuple[int, int]):
    config = ExamplesConfig(image_size=16, image_format="png")
    data = SliceEncoder(config)(make_dicom(random_hounsfield(5, *shape) + 1024))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    windowed = Windowing(config.windows)(random_hounsfield(5, *shape))
    np.testing.assert_array_equal(image, resize(to_square(windowed), 16))


def test_jpeg_is_close_to_png():
    hounsfield = np.add.outer(np.arange(64), np.arange(64)) - 30
    data = make_dicom(hounsfield + 1024)
    png, jpeg = (
        cv2.imdecode(
            np.frombuffer(SliceEncoder(ExamplesConfig(64, image_format=f))(data), np.uint8),
            cv2.IMREAD_COLOR,
        ).astype(int)
        for f in ("png", "jpeg")
    )
    assert np.abs(png - jpeg).mean() < 2


def test_what_cannot_be_decoded_is_a_bad_slice(tmp_path: Path):
    with pytest.raises(BadSliceError, match="cut short"):
        SliceEncoder(ExamplesConfig())(make_dicom()[:-1])


def test_a_shards_fingerprint_follows_inputs_and_settings(tmp_path: Path):
    """What changes the shard rebuilds it; nothing else does."""
    files = {f"{i}.dcm": make_dicom(SOPInstanceUID=f"{i}") for i in range(2)}
    archive = write_zip(tmp_path / "a.zip", files)
    opened = open_archive(str(archive))
    cells = [
        {f"member_{name}": value for name, value in opened.member(i)._asdict().items()}
        for i in range(2)
    ]
    rows = [metadata_row(f"{i}", 5 * i, **cells[i]) for i in range(2)]
    config = ExamplesConfig(image_size=16)
    labels_csv = tmp_path / "labels.csv"
    labels_csv.write_text(
        "image_id,epidural,intraparenchymal,intraventricular,subarachnoid,"
        "subdural,any\n0,1,1,1,1,1,1\n"
    )

    def build(
        batches: list[list[str]], labels: Path | None = None, **changes: Any
    ) -> tuple[str, bool]:
        changed = dataclasses.replace(config, **changes)
        path = None if labels is None else str(labels)
        builder = ExampleBuilder(str(archive), str(tmp_path), changed, {"train": 1}, path)
        builder.setup()
        receipt = builder.build((ShardKey("train", 0), list(map(pack_rows, batches))))
        return receipt["fingerprint"], receipt.get("reused", False)

    first, reused = build([rows])
    assert not reused
    assert build([rows]) == (first, True)
    assert build([rows[1:], rows[:1]]) == (first, True)
    built = [
        build([rows], labels_csv),
        build([rows[:1]]),
        build([rows], image_size=24),
        build([rows], jpeg_quality=50),
        build([rows], windows=config.windows[::-1]),
        build([rows], val_ratio=0.2),
        build([[rows[0], metadata_row("1", 5, **{**cells[1], "member_crc": 1})]]),
    ]
    assert not any(reused for _, reused in built)
    assert len({first, *(fingerprint for fingerprint, _ in built)}) == 8
