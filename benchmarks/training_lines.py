"""Lines on what the trainer reads."""

from benchmarks import stages
from benchmarks.arithmetic import ratio, slope
from benchmarks.bench import Bench, Job
from benchmarks.lines import Goal, Row, line, make_row, number

_ARCHIVE, _IMAGE_SIZE = "5k", 256


@line("training_input", archives=(_ARCHIVE,), fixtures_gb=0.2)
def training_input(bench: Bench) -> list[Row]:
    """Training images a second and core at 256 px, and how long a step waits for them."""
    data_dir = bench.examples(_ARCHIVE, _IMAGE_SIZE)
    counts = bench.pick((2_048, 12_288), (128, 512))
    steps = bench.pick(40, 2)

    def command(*flags: object) -> list[str]:
        shared = ("--data_dir", data_dir, "--image_size", _IMAGE_SIZE)
        return stages.program("benchmarks.training_input", *shared, *flags)

    jobs = [Job(f"read-{n}", command("--images", n)) for n in counts]
    jobs += [Job(f"plain-{n}", command("--images", n, "--plain")) for n in counts]
    runs = bench.alternate([*jobs, Job("train", command("--train_steps", steps))])
    figure, reference = (
        1 / slope([runs[f"{kind}-{n}"].cpu for n in counts], counts) for kind in ("read", "plain")
    )
    step, waited = runs["train"].reported("step"), runs["train"].reported("wait")
    constant = runs["train"].reported("step_constant")
    share = waited / step
    return [
        make_row(
            "training_input.rate",
            "training input, 256 px: read, decode, augment, batch, images a second and core",
            figure=number(figure, "images/s"),
            reference=number(reference, "images/s (read, decode and batch alone)"),
            ratio=ratio(figure, reference),
            goal=Goal("rate", at_least=900, unit=" images/s"),
            judged=[figure],
            usage=runs[f"read-{counts[1]}"].usage,
            note=f"CPU slope from {counts[0]:,} to {counts[1]:,} images of "
            f"{bench.num_slices(_ARCHIVE):,} slices",
        ),
        make_row(
            "training_input.wait",
            "training small_cnn at 256 px: share of a step that waits for its batch",
            figure=f"{100 * share:.2f}%",
            goal=Goal("share", at_most=5, unit="%"),
            judged=[100 * share],
            usage=runs["train"].usage,
            note=f"{steps} steps of {number(step * 1e3, 'ms')}, hand loop of train_on_batch",
        ),
        make_row(
            "training_input.step",
            "training small_cnn at 256 px: a step, against one on a batch that stays",
            figure=number(step * 1e3, "ms"),
            reference=number(constant * 1e3, "ms"),
            ratio=ratio(step, constant),
            usage=runs["train"].usage,
            note="input and model share the cores: what the input computes, the model lacks",
        ),
    ]
