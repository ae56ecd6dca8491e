"""Lines on the stages that run a model: extract_embeddings and predict."""

import json
from pathlib import Path

from benchmarks import stages
from benchmarks.arithmetic import ratio, slope
from benchmarks.bench import Bench, Job, code_fingerprint, record_fingerprint, remover
from benchmarks.lines import Goal, Row, line, make_row, number

_BASE_ID, _LSTM_ID = "base1", "lstm1"
_SMALL, _LARGE = "1k", "5k"
# The test part of the real archive.
_NUM_TEST_SLICES, _DIM = 121_232, 1_536


def base_experiment(bench: Bench, backbone: str, image_size: int) -> Path:
    """The folder of a base experiment with random weights."""

    def make(folder: Path) -> None:
        flags = ["--data_dir", folder, "--backbone", backbone, "--image_size", image_size]
        bench.prepare(backbone, stages.program("benchmarks.experiments", *flags))

    parameters = {"backbone": backbone, "image_size": image_size, "code": code_fingerprint()}
    folder = bench.fixture(f"model-{backbone}-{image_size}", parameters, make)
    return next((folder / "experiments").glob(f"{_BASE_ID}_*"))


def embeddings_job(label: str, data_dir: Path, model: Path) -> Job:
    """extract_embeddings of all splits."""
    command = stages.extract_embeddings(data_dir, model)
    return Job(label, command, remover(data_dir / "embeddings"))


def _embedding_row(bench: Bench, backbone: str, image_size: int) -> Row:
    counts = [bench.num_slices(name) for name in (_SMALL, _LARGE)]
    model = base_experiment(bench, backbone, image_size)
    roots = [bench.examples(name, image_size) for name in (_SMALL, _LARGE)]
    stage_jobs = [
        embeddings_job(f"{backbone}-{n}", r, model) for n, r in zip(counts, roots, strict=True)
    ]
    flags = ["--experiment", model, "--examples", roots[1], "--images", *counts]
    plain = Job(f"{backbone}-predict", stages.program("benchmarks.model_time", *flags))
    runs = bench.alternate([*stage_jobs, plain])
    for job in stage_jobs:
        job.before()
    stage = 1 / slope([runs[job.label].wall for job in stage_jobs], counts)
    seconds = [runs[plain.label].reported(f"seconds_{i}") for i in range(2)]
    reference = 1 / slope(seconds, counts)
    value = ratio(stage, reference)
    return make_row(
        f"extract_embeddings.{backbone}",
        f"extract_embeddings, {backbone}, {image_size} px, images a second",
        figure=number(stage, "images/s"),
        reference=number(reference, "images/s (model.predict)"),
        ratio=value,
        goal=Goal("ratio", at_least=0.95),
        judged=[value],
        usage=runs[stage_jobs[1].label].usage,
        note=f"wall slopes from {counts[0]:,} to {counts[1]:,} slices; random weights",
    )


@line("extract_embeddings", archives=(_SMALL, _LARGE), fixtures_gb=0.3, scratch_gb=0.2)
def extract_embeddings(bench: Bench) -> list[Row]:
    """extract_embeddings against model.predict on arrays in memory."""
    return [_embedding_row(bench, "small_cnn", 96), _embedding_row(bench, "resnet_50", 64)]


def sequences(bench: Bench, num_slices: int, dim: int) -> Path:
    """A data root with synthetic test sequences and the experiments to predict from them."""

    def make(folder: Path) -> None:
        shards = ["--data_dir", folder, "--slices", num_slices, "--dim", dim]
        label = f"sequences of {num_slices:,} slices"
        bench.prepare(label, stages.program("benchmarks.sequence_shards", *shards))
        model = ["--data_dir", folder, "--embedding_dim", dim]
        bench.prepare("sequence model", stages.program("benchmarks.experiments", *model))

    parameters = {"slices": num_slices, "dim": dim, "code": record_fingerprint()}
    return bench.fixture(f"sequences-{num_slices}-{dim}", parameters, make)


def predict_job(label: str, data_dir: Path) -> Job:
    """Predict from sequences to a CSV."""
    outputs = (data_dir / "predictions", data_dir / "output2.csv")
    return Job(label, stages.predict(data_dir, _LSTM_ID), remover(*outputs))


def num_sequences(data_dir: Path) -> int:
    """Test sequences of a data root."""
    path = data_dir / "sequences" / _BASE_ID / "test" / "manifest.json"
    return json.loads(path.read_text())["num_sequences"]


@line("predict", fixtures_gb=1.7, scratch_gb=0.1)
def predict(bench: Bench) -> list[Row]:
    """Predict, 121,232 slices to CSV from sequences, beyond the model's own time."""
    num_slices = bench.pick(_NUM_TEST_SLICES, 1_000)
    data_dir = sequences(bench, num_slices, _DIM)
    model = next((data_dir / "experiments" / "lstm").glob(f"{_LSTM_ID}_*"))
    flags = ["--experiment", model, "--sequences", num_sequences(data_dir)]
    job = predict_job("predict", data_dir)
    runs = bench.alternate([job, Job("model", stages.program("benchmarks.model_time", *flags))])
    job.before()
    own = runs["model"].reported("seconds_0")
    usage = runs["predict"].usage
    beyond = usage.wall_seconds - own
    note = f"{num_sequences(data_dir):,} synthetic sequences of {_DIM:,} numbers a slice"
    return [
        make_row(
            "predict.wall",
            f"predict, {num_slices:,} slices to CSV from sequences, beyond the model's own time",
            figure=number(beyond, "s"),
            reference=number(own, "s (the model alone)"),
            goal=Goal("beyond", at_most=180, unit=" s"),
            judged=[beyond],
            usage=usage,
            note=f"{note}; one LSTM of 16 cells: a small model hides little",
        ),
        make_row(
            "predict.memory",
            f"predict, peak memory, {num_slices:,} slices",
            figure=number(usage.peak_tree_gb, "GB"),
            goal=Goal("peak", at_most=1.5, unit=" GB"),
            judged=[usage.peak_tree_gb],
            usage=usage,
            note=note,
        ),
    ]
