import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines import slice_references
from beam_pipelines.layout import DataLayout
from beam_pipelines.slice_references import pack_rows, read_block, row_blocks, unpack_rows

texts = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=30)


@given(st.lists(texts, min_size=1, max_size=50))
def test_rows_come_back_from_a_shuffle(rows: list[str]):
    assert unpack_rows(pack_rows(rows)) == rows


@given(st.lists(texts, max_size=20), st.lists(texts, max_size=5), st.integers(1, 100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_of_any_size_hold_every_row_once(
    tmp_path: Path, train: list[str], test: list[str], block_bytes: int
):
    """Blocks end inside rows, headers and characters; a row is of the block that it starts in."""
    for subset, rows in (("train", train), ("test", test)):
        lines = ["a header, which is no row", *rows, ""]
        (tmp_path / f"{subset}_metadata.csv").write_text("\n".join(lines), newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_references, "_BLOCK_BYTES", block_bytes)
        blocks = row_blocks(DataLayout(str(tmp_path)))
    assert all(block.end - block.start <= block_bytes for block in blocks)
    for subset, rows in (("train", train), ("test", test)):
        found = [read_block(block) for block in blocks if block.subset == subset]
        assert list(itertools.chain.from_iterable(found)) == rows
