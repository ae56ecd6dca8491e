import pytest

from beam_pipelines import options, runs
from beam_pipelines.errors import UserError
from beam_pipelines.progress import num_cores


def all_options(*flags: str, **values: bool) -> dict:
    return runs.pipeline_options(list(flags), **values).get_all_options()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_worker=3"], "unknown flag --num_worker; did you mean --num_workers?"),
        (["--num_worker", "3"], "unknown flag --num_worker; did you mean --num_workers?"),
        (["--qqq"], "unknown flag --qqq; see --help and --help_beam"),
        (["stray"], "unexpected argument 'stray'; every argument is a --flag"),
        (["--region", "x", "stray"], "unexpected argument 'stray'; every argument is a --flag"),
        (["--region=x", "stray"], "unexpected argument 'stray'; every argument is a --flag"),
    ],
)
def test_flags_that_beam_does_not_know_are_refused(flags: list[str], message: str):
    with pytest.raises(UserError) as error:
        runs.pipeline_options(flags)
    assert str(error.value) == message


@pytest.mark.parametrize("flags", [[], ["--runner=DirectRunner"], ["--runner", "FnApiRunner"]])
def test_the_embedded_runner_is_pinned(flags: list[str]):
    """DirectRunner would choose among engines by what the pipeline holds."""
    found = all_options(*flags)
    assert found["runner"] == "FnApiRunner"
    assert found["direct_running_mode"] == "in_memory"
    assert (found["direct_num_workers"], found["build_threads"]) == (1, num_cores() + 1)


def test_stages_of_one_model_run_in_one_thread():
    found = all_options(threads=False)
    assert (found["direct_running_mode"], found["direct_num_workers"]) == ("in_memory", 1)
    assert found["build_threads"] == 1


def test_beams_own_workers_build_a_shard_each():
    found = all_options("--direct_num_workers=3")
    assert (found["direct_running_mode"], found["direct_num_workers"]) == ("multi_threading", 3)
    assert found["build_threads"] == 1


@pytest.mark.parametrize("number", ["0", "-1"])
def test_there_is_a_thread_to_build_in(number: str):
    with pytest.raises(UserError, match=f"--build_threads: received {number}; give a number from"):
        runs.pipeline_options([f"--build_threads={number}"])


@pytest.mark.parametrize(
    "flags",
    [
        ["--direct_running_mode=in_memory", "--direct_num_workers=3"],
        ["--direct_running_mode", "in_memory", "--direct_num_workers", "3"],
    ],
)
def test_what_is_given_counts(flags: list[str]):
    found = all_options(*flags)
    assert (found["direct_running_mode"], found["direct_num_workers"]) == ("in_memory", 3)


def test_another_runner_is_passed_on_with_its_flags():
    found = all_options("--runner=DataflowRunner", "--project=p", "--region=r", "--num_workers=5")
    assert (found["runner"], found["project"], found["region"]) == ("DataflowRunner", "p", "r")
    assert found["num_workers"] == 5
    assert (found["direct_num_workers"], found["build_threads"]) == (1, 1)


def parse(*argv: str):
    parser = options.make_parser("beam_pipelines.stage", "What it does.")
    options.add_data_dir(parser)
    options.add_archive(parser)
    options.add_max_bad_fraction(parser)
    options.add_base_data(parser)
    return options.parse(parser, argv)


def test_own_flags_and_beams_are_told_apart():
    args = parse("--data_dir", "d", "--archive=a.zip", "--runner", "X", "--project=p")
    assert (args.data_dir, args.archive) == ("d", "a.zip")
    assert args.beam_args == ["--runner", "X", "--project=p"]


def test_defaults():
    args = parse("--data_dir", "d", "--archive", "a")
    assert args.max_bad_fraction == 0.01
    assert args.base_data == ["train", "validation", "test"]
    assert args.beam_args == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: --data_dir, --archive; see --help"),
        (["--data_dir"], "argument --data_dir: expected one argument; see --help"),
        (
            ["--max_bad_fraction", "few"],
            "argument --max_bad_fraction: received 'few'; give a number from 0 to 1; see --help",
        ),
        (
            ["--max_bad_fraction", "1.5"],
            "argument --max_bad_fraction: received '1.5'; give a number from 0 to 1; see --help",
        ),
        (
            ["--max_bad_fraction", "nan"],
            "argument --max_bad_fraction: received 'nan'; give a number from 0 to 1; see --help",
        ),
        (
            ["--base_data", "dev"],
            "argument --base_data: invalid choice: 'dev' (choose from 'train', 'validation', "
            "'test'); see --help",
        ),
    ],
)
def test_wrong_flags_are_user_errors(argv: list[str], message: str):
    with pytest.raises(UserError) as error:
        parse(*argv)
    assert str(error.value) == f"python -m beam_pipelines.stage: {message}"


def test_flags_are_not_abbreviated():
    args = parse("--data_dir", "d", "--archive", "a", "--max_bad", "0.5")
    assert args.beam_args == ["--max_bad", "0.5"]


def test_a_main_without_a_pipeline_takes_its_own_flags_alone():
    parser = options.make_parser("beam_pipelines.stage", "", beam=False)
    options.add_data_dir(parser)
    assert "--runner" not in parser.format_help()
    with pytest.raises(UserError, match="unrecognized arguments: --runner=X"):
        options.parse_all(parser, ["--data_dir", "d", "--runner=X"])


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_a_workers_user_error_comes_out_in_its_own_words(mode: str):
    def fail(_: int) -> None:
        raise UserError("what, where; do [this] instead")

    with (
        pytest.raises(UserError) as error,
        runs.run_pipeline(runs.pipeline_options([f"--direct_running_mode={mode}"])) as pipeline,
    ):
        import apache_beam as beam

        pipeline | beam.Create([1]) | "Fail" >> beam.Map(fail)
    assert str(error.value) == "what, where; do [this] instead"


def test_a_workers_defect_stays_a_defect():
    with (
        pytest.raises(ZeroDivisionError, match="division by zero"),
        runs.run_pipeline(runs.pipeline_options([])) as pipeline,
    ):
        import apache_beam as beam

        pipeline | beam.Create([0]) | "Divide" >> beam.Map(lambda v: 1 / v)
