"""The line on how long a command takes to say what it does."""

from benchmarks import stages
from benchmarks.bench import ROOT, Bench, Job
from benchmarks.lines import Goal, Row, line, make_row, number


def main_modules() -> list[str]:
    """Every module of the pipelines and the trainer that is a command."""
    return [
        f"{package}.{path.stem}"
        for package in ("beam_pipelines", "trainer")
        for path in sorted((ROOT / package).glob("*.py"))
        if 'if __name__ == "__main__":' in path.read_text()
    ]


@line("help")
def show_help(bench: Bench) -> list[Row]:
    """`--help` of every command."""
    modules = main_modules()
    runs = bench.alternate(Job(m, stages.program(m, "--help")) for m in modules)
    seconds = {
        module: sorted(usage.wall_seconds for usage in runs[module].usages) for module in modules
    }
    medians = {module: found[len(found) // 2] for module, found in seconds.items()}
    slowest = max(medians, key=lambda module: medians[module])
    return [
        make_row(
            "help.wall",
            f"--help of the slowest of {len(modules)} commands: {slowest}",
            figure=number(medians[slowest], "s"),
            goal=Goal("each", at_most=2, unit=" s"),
            judged=list(medians.values()),
            usage=runs[slowest].usage,
            note=f"median of {bench.repeats}; the fastest takes "
            f"{number(min(medians.values()), 's')}",
        )
    ]
