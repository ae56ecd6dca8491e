import dataclasses
from pathlib import Path
from typing import Any

from synthetic import make_dicom, metadata_row, write_zip

from beam_pipelines.archive import open_archive
from beam_pipelines.examples import ExampleBuilder
from beam_pipelines.series import ShardKey
from beam_pipelines.slice_references import pack_rows
from configs import ExamplesConfig


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
    config = ExamplesConfig(image_size=16, channels="windows")
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
        build([rows], channels="neighbours"),
        build([rows], channels="both"),
        build([rows], crop="none"),
        build([[rows[0], metadata_row("1", 5, **{**cells[1], "member_crc": 1})]]),
    ]
    assert not any(reused for _, reused in built)
    assert len({first, *(fingerprint for fingerprint, _ in built)}) == 11
