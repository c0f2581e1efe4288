"""The cost estimate that `workbench trace --dry-run` prints."""

from rich import box
from rich.console import Group
from rich.filesize import decimal
from rich.table import Table

from cache import CachePlan
from cache.wording import counted
from workbench.studies.pricing import TRIAL_CALLS, Price
from workbench.studies.study import StudySpec


def measuring(spec: StudySpec, plan: CachePlan) -> str:
    """Return a sentence on what `price` runs, for before it starts."""
    clips = counted(min(plan.clips_per_shard, plan.n_clips), "clip")
    return (
        f"Measuring: {counted(TRIAL_CALLS, 'denoiser call')} with {clips} of {spec.settings.duration:g} s as one "
        "batch, and decoding one clip. If this runs out of memory, so would the trace: then give a smaller "
        "--clips-per-shard or --duration."
    )


def price_table(price: Price) -> Group:
    """Make a table with one row per site (dtype, bytes, rounding error), and the totals."""
    plan = price.plan
    sizes = plan.bytes_per_site()
    sites = Table(box=box.SIMPLE_HEAD)
    for column in ("site", "channels", "dtype", "bytes", "largest", "float16\nerror", "bfloat16\nerror"):
        sites.add_column(
            column, justify="left" if column in ("site", "dtype") else "right", no_wrap=column == "site"
        )
    for site, rounding in price.trial.rounding.items():
        errors = [_error(rounding[dtype], dtype) for dtype in ("float16", "bfloat16")]
        largest = f"{rounding['float32']['largest']:.3g}"
        sites.add_row(site, str(plan.sites[site]), plan.dtypes[site], decimal(sizes[site]), largest, *errors)
    sums = Table(box=None, show_header=False)
    sums.add_column(style="bold")
    sums.add_row("clips to generate", f"{price.clips} of {plan.n_clips}")
    sums.add_row(
        "denoiser calls", f"{price.calls} (batches of {min(plan.clips_per_shard, plan.n_clips)} clips)"
    )
    sums.add_row(
        "steps kept", ", ".join(f"{s} (σ {v:.3g})" for s, v in zip(plan.steps, plan.sigmas, strict=True))
    )
    sums.add_row("passes", ", ".join(plan.passes))
    sums.add_row(
        "tokens kept", f"{plan.tokens} per clip, every {plan.token_seconds:.3g} s{_reduction(price)}"
    )
    limit = "at most " if plan.zstd_level else ""
    sums.add_row("bytes to write", f"{limit}{decimal(price.total_bytes)}")
    free = "not limited" if price.free_bytes is None else decimal(price.free_bytes)
    sums.add_row("free disk", free)
    sums.add_row("estimated time", f"{in_words(price.seconds)} ({price.trial.call_seconds:.3g} s a call)")
    return Group(sites, sums)


def _error(rounding: dict[str, float], dtype: str) -> str:
    fits = dtype != "float16" or rounding["largest"] < 65520
    return f"{rounding['rms_error']:.2g}" if fits else "too large"


def _reduction(price: Price) -> str:
    reduction = price.plan.token_reduction
    what = {"none": "", "stride": f" (one of {reduction.size})", "mean": f" (means of {reduction.size})"}
    return what[reduction.kind]


def in_words(seconds: float) -> str:
    """Return a time as it is read: in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
