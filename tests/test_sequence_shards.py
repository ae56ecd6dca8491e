import numpy as np
from embedding_data import embedding_of, make_items
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.schema import NUM_LABELS, Sequence, Slice
from beam_pipelines.sequence_shards import make_windows


def windows_of(items: list[Slice], max_to_keep: int) -> tuple[list[Sequence], np.ndarray]:
    embeddings, logits = map(np.stack, zip(*(embedding_of(i.image_id) for i in items), strict=True))
    features = np.arange(len(items) * 2, dtype=np.float32).reshape(-1, 2) + 1
    return list(make_windows(items, embeddings, logits, features, max_to_keep)), embeddings


@given(st.integers(1, 25), st.integers(2, 9))
def test_every_slice_is_in_a_window_with_its_own_values(num_slices: int, max_to_keep: int):
    items = make_items("a", num_slices)
    windows, _ = windows_of(items, max_to_keep)
    seen = set()
    for window in windows:
        assert len(window.image_ids) == len(window.mask) == max_to_keep
        assert [bool(image_id) for image_id in window.image_ids] == window.mask.astype(
            bool
        ).tolist()
        for row, image_id in enumerate(window.image_ids):
            if not image_id:
                assert not window.embeddings[row].any()
                assert not window.logits[row].any()
                assert not window.slice_features[row].any()
                assert window.labels is not None
                assert not window.labels[row].any()
                continue
            item = items[window.start + row]
            assert image_id == item.image_id
            embedding, logits = embedding_of(image_id)
            np.testing.assert_array_equal(window.embeddings[row], embedding)
            np.testing.assert_array_equal(window.logits[row], logits)
            assert window.slice_features[row, 0] == 2 * item.index + 1
            assert tuple(window.labels[row]) == item.label
            seen.add(image_id)
    assert seen == {item.image_id for item in items}


def test_a_short_series_is_one_padded_window():
    (window,), _ = windows_of(make_items("a", 3), 5)
    assert window.mask.tolist() == [1, 1, 1, 0, 0]
    assert window.image_ids == ("a-0", "a-1", "a-2", "", "")
    assert (window.start, window.num_slices) == (0, 3)


def test_unlabelled_series_have_no_labels():
    (window,), _ = windows_of(make_items("a", 3, labelled=False), 5)
    assert window.labels is None


def test_an_unlabelled_slice_in_a_labelled_series_is_marked():
    labelled, unlabelled = make_items("a", 2), make_items("a", 2, labelled=False)
    (window,), _ = windows_of([labelled[0], unlabelled[1]], 3)
    assert window.labels is not None
    assert tuple(window.labels[0]) == labelled[0].label
    assert window.labels[1:].tolist() == [[-1] * NUM_LABELS, [0] * NUM_LABELS]
