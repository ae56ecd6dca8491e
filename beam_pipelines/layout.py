"""Where everything lives under `--data_dir`: the one place that spells a file name."""

from dataclasses import dataclass

from beam_pipelines import storage
from beam_pipelines.errors import require

# In a base experiment's folder: what was fitted on its train split.
TRANSFORM = "transform"
LABEL_PRIORS = "label_priors.json"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataLayout:
    """Paths under one data root, a local folder or `gs://bucket/prefix`."""

    data_dir: str

    def __post_init__(self) -> None:
        require(
            not set(self.data_dir) & set("*?[]"),
            f"--data_dir {self.data_dir}: files are found by patterns, in which * ? [ ] have a "
            "meaning; give a folder whose name has none of them",
        )

    def path(self, *names: str) -> str:
        """A path under the data root."""
        return storage.join(self.data_dir, *names)

    def metadata_csv(self, subset: str) -> str:
        """One row a slice; `subset` is train or test."""
        return self.path(f"{subset}_metadata.csv")

    @property
    def metadata_parts(self) -> str:
        """Folder of the parts that extract_metadata merges."""
        return self.path("metadata_parts")

    @property
    def metadata_manifest(self) -> str:
        """What the metadata was made from; written last."""
        return self.path("metadata_manifest.json")

    @property
    def labels_csv(self) -> str:
        """Kaggle's own label file, where the user put it into the data root."""
        return self.path("stage_2_train.csv")

    @property
    def processed_labels_csv(self) -> str:
        """Long form: image_id, subtype, label."""
        return self.path("processed_stage_2_train.csv")

    @property
    def reshaped_labels_csv(self) -> str:
        """Wide form: image_id and one column a subtype."""
        return self.path("reshaped_stage_2_train.csv")

    def quarantine_csv(self, stage: str) -> str:
        """Slices that `stage` could not use, with the reason."""
        return self.path("quarantine", f"{stage}.csv")

    def examples(self, split: str) -> str:
        """Folder of the example shards of a split."""
        return self.path(split)

    @property
    def experiments(self) -> str:
        """Folder of the base experiments."""
        return self.path("experiments")

    @property
    def sequence_experiments(self) -> str:
        """Folder of the sequence experiments."""
        return self.path("experiments", "lstm")

    def embeddings(self, model_id: str, split: str) -> str:
        """Folder of one base experiment's embedding shards of a split."""
        return self.path("embeddings", model_id, split)

    def sequences(self, model_id: str, split: str) -> str:
        """Folder of one base experiment's sequence shards of a split."""
        return self.path("sequences", model_id, split)

    def predictions(self, model_type: str, model_id: str) -> str:
        """Folder of the parts that predict merges."""
        return self.path("predictions", f"{model_type}-{model_id}")

    @property
    def prediction_csv(self) -> str:
        """Default place of the submission."""
        return self.path("output2.csv")


def shard_name(index: int, num_shards: int, extension: str = "tfrecord") -> str:
    """`shard-00003-of-00008.tfrecord`."""
    return f"shard-{index:05d}-of-{num_shards:05d}.{extension}"
