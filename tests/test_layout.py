import pytest

from beam_pipelines.errors import UserError
from beam_pipelines.layout import DataLayout, shard_name


@pytest.mark.parametrize("root", ["data", "data/", "gs://bucket/prefix", "gs://bucket/prefix/"])
def test_everything_is_under_the_root(root: str):
    layout, start = DataLayout(root), root.rstrip("/")
    assert layout.metadata_csv("train") == f"{start}/train_metadata.csv"
    assert layout.examples("validation") == f"{start}/validation"
    assert layout.embeddings("17", "test") == f"{start}/embeddings/17/test"
    assert layout.sequence_experiments == f"{start}/experiments/lstm"
    assert layout.prediction_csv == f"{start}/output2.csv"
    assert layout.quarantine_csv("build_examples") == f"{start}/quarantine/build_examples.csv"


@pytest.mark.parametrize("root", ["run[1]", "gs://bucket/*", "data?"])
def test_roots_that_are_patterns_are_refused(root: str):
    with pytest.raises(UserError) as error:
        DataLayout(root)
    assert str(error.value).startswith(f"--data_dir {root}: files are found by patterns, in which")


def test_shard_names_sort_by_number():
    names = [shard_name(i, 12) for i in range(12)]
    assert names[3] == "shard-00003-of-00012.tfrecord"
    assert names == sorted(names)
