from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.label_table import empty_table, read_label_table
from beam_pipelines.schema import SUBTYPES

HEADER = ",".join(["image_id", *SUBTYPES]) + "\n"
ids = st.text("abcXYZ019._-", min_size=1, max_size=20)
labels = st.tuples(*[st.integers(0, 1)] * len(SUBTYPES))


@given(st.dictionaries(ids, labels, max_size=30), st.lists(ids, max_size=5))
def test_every_label_is_found_and_no_other(
    tmp_path_factory, known: dict[str, tuple[int, ...]], others: list[str]
):
    path: Path = tmp_path_factory.mktemp("labels") / "labels.csv"
    rows = (f"{image_id},{','.join(map(str, row))}\n" for image_id, row in known.items())
    path.write_text(HEADER + "".join(rows))
    wanted = [*others, *reversed(known)]
    found = read_label_table(str(path)).find(wanted)
    assert found == [known.get(image_id) for image_id in wanted]


def test_ids_that_no_label_file_can_hold_have_no_labels(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text(HEADER + "a,0,1,0,0,0,1\n")
    table = read_label_table(str(path))
    assert table.find(["ä", "a" * 100, "", "a"]) == [None, None, None, (0, 1, 0, 0, 0, 1)]


def test_without_labels_there_are_none():
    assert empty_table().find(["a", "b"]) == [None, None]
    assert empty_table().find([]) == []
