"""The command that evaluates methods of steering."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyses.evaluation.benchmark_spec import BenchmarkSpec
from workbench.cli.console import Device, StudyFolder, note, open_study, output, progress_of_parts
from workbench.cli.options import offers
from workbench.cli.reports import report_benchmark

if TYPE_CHECKING:
    from analyses.evaluation.benchmark_price import BenchmarkPrice


@offers(BenchmarkSpec, randoms="--random", sites="--sites")
def evaluate(
    study_folder: StudyFolder,
    published: Annotated[
        Path | None,
        typer.Option(
            help="Table published with TADA (steering_metrics.csv), whose areas are shown beside those of this study."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what it costs.")] = False,
    device: Device = "cpu",
    **asked: Any,
) -> None:
    """Compare methods of steering on prompts that none was computed from, with controls, nulls and intervals.

    Strengths are chosen on other prompts, and by other judges, than those that report. Run again to continue: vectors,
    sliders and clips that the study has are not made again.
    """
    from analyses.evaluation.benchmark import asked_benchmark, check_benchmark, run_benchmark
    from analyses.evaluation.benchmark_price import benchmark_price
    from workbench.artefacts.steering_metrics import load_steering_metrics

    metrics = None if published is None else load_steering_metrics(published)
    study = open_study(study_folder)
    spec = asked_benchmark(study, **asked)
    model = study.load_model(device)
    if dry_run:
        for sentence in check_benchmark(study, model, spec):
            note(sentence)
    _print_price(benchmark_price(study, model, spec))
    if dry_run:
        return
    with progress_of_parts() as parts:
        run_benchmark(study, model, spec, parts, note)
    report_benchmark(study, spec.result_name, metrics)


def _print_price(price: "BenchmarkPrice") -> None:
    from workbench.cli.pricing_table import in_words

    output.print(
        f"At most {price.steered:,} steered clips with their unsteered and real ones, and {price.fitted:,} clips that "
        f"vectors are computed from: {in_words(price.seconds)} on one process, without training concept sliders.",
        soft_wrap=True,
    )
