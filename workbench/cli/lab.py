"""The `workbench lab` command: make clips with edits in the browser, without a traced study."""

from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from cache.errors import UserError
from dashboards.address import LOCAL
from workbench.cli.console import Device, command_line, console
from workbench.cli.model_options import Duration, Guidance, ModelDtype, ModelOptions, NumSteps
from workbench.cli.signals import ended_in_order
from workbench.prompts.defaults import PROMPT_SET


def lab(
    model: Annotated[
        str, typer.Argument(help="organism-shared, organism-split, a pipeline folder, or a hub id.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Study folder for the clips, created or continued; by default temporary."),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help=f"Built-in prompt set, or a YAML file; {PROMPT_SET} by default.")
    ] = None,
    duration: Duration = None,
    num_steps: NumSteps = None,
    guidance: Guidance = None,
    option: ModelOptions = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOCAL.host,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = LOCAL.port,
    model_dtype: ModelDtype = "float32",
    device: Device = "cpu",
) -> None:
    """Make clips with edits in the browser, and hear them against the unedited clips."""
    from analyses.lab.folder import has_study, lab_study
    from analyses.lab.lab import Lab
    from dashboards.address import Address
    from dashboards.app import serve
    from dashboards.jobs import Jobs
    from dashboards.lab_link import PATH
    from workbench.models import load_model
    from workbench.studies.selection import parse_options

    asked: dict[str, Any] = {"duration": duration, "num_steps": num_steps, "guidance_scale": guidance}
    settings = {name: value for name, value in asked.items() if value is not None}
    settings |= {"options": parse_options(option)} if option else {}
    if out is not None and has_study(out) and (settings or prompts):
        raise UserError(
            f"The study in {out} has its own prompts and settings. Leave out the options that say otherwise, or give "
            "another folder (--out)."
        )
    adapter = load_model(model, device=device, dtype=model_dtype)
    with ExitStack() as ending:
        ending.enter_context(ended_in_order())
        kept, again = "the study", f"Restart it with “{command_line()}”."
        if out is None:
            folder = TemporaryDirectory(prefix="workbench-lab-", ignore_cleanup_errors=True)
            out = Path(ending.enter_context(folder)) / "lab"
            kept = "a folder that is removed when the lab ends (--out keeps them)"
            again = (
                "If the lab has ended, its clips are gone (--out keeps them): start a new one with "
                f"“{command_line()}”."
            )
        study = lab_study(adapter, out, prompts or PROMPT_SET, settings)
        console.print(f"The clips are kept in {kept}: {out}", soft_wrap=True)
        jobs = ending.enter_context(closing(Jobs(device, Lab(device, adapter))))
        serve(study.path, Address(host, port, again=again), jobs=jobs, page=PATH)
