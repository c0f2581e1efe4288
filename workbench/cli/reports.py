"""Summaries that commands print when they finish: the result's location, its main values, and the next commands."""

import shlex
from typing import TYPE_CHECKING

from cache.wording import counted
from workbench.cli.console import output, print_table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from workbench.studies.study import Study


def report_trace(study: "Study") -> None:
    """Print a summary of a traced study."""
    from rich.filesize import decimal

    from cache import ActivationCache

    cache = ActivationCache(study.cache_location, allow_partial=True)
    there, shards = len(cache.manifest.entries), cache.plan.n_shards
    size = sum(file.bytes for entry in cache.manifest.entries.values() for file in entry.files.values())
    clips = f"{counted(len(study.clips), 'clip')} of {counted(study.clips['prompt_id'].nunique(), 'prompt')}"
    where = f"{counted(len(cache.sites), 'site')} × {counted(len(cache.plan.steps), 'step')}"
    _say(f"{study.path} has {clips}, {where}, {decimal(size)} in {study.cache_location}.")
    if there < shards:
        _say(f"{shards - there} of its {shards} shards are not traced yet (by other jobs).")
        return
    _say_next(study, "patch", "probe", "dashboard")


def report_map(study: "Study", name: str) -> None:
    """Print the main values of a patching map by each scorer, by its name without "patching-", and how they agree."""
    from dashboards.summaries import agreement_summary, has_impacts, patching_summary, undefined_notes

    result = _where(study, f"patching-{name}")
    for scorer in result["scorer"].values.tolist():
        title = "cells of largest impact" if has_impacts(result, scorer) else "no impact is defined"
        print_table(f"Map {name} by {scorer}: {title}", patching_summary(result, scorer))
        for sentence in undefined_notes(result, scorer):
            _say(f"{scorer}: {sentence}")
    if len(agreed := agreement_summary(result)):
        print_table("Agreement of the scorers' maps", agreed)
    option = "" if name == "blocks" else f" --option name={shlex.quote(name)}"
    _say_next(study, "dashboard", f"export --figure patching{option}")


def report_probes(study: "Study") -> None:
    """Print the site and step at which each concept is decoded, and each descriptor predicted, best."""
    from dashboards.summaries import probes_summary, ridge_summary

    result = _where(study, "probes")
    best = probes_summary(result)
    print_table("Most accurate probe of each concept", best)
    if len(predicted := ridge_summary(result)):
        print_table("Best ridge probe of each descriptor", predicted)
    _say_next(study, f"sae train --site {best['site'].iloc[0]}", "dashboard", "export --figure probes")


def report_sae(study: "Study", name: str) -> None:
    """Print the quality of an autoencoder, and the features that distinguish concepts best."""
    from dashboards.summaries import sae_metrics, sae_summary

    result = _where(study, f"sae-{name}")
    print_table(f"Sparse autoencoder {name}", sae_metrics(result))
    print_table("Features that distinguish a value best", sae_summary(result, study.clips))
    _say_next(study, "dashboard", f"export --figure sae-training --option name={shlex.quote(name)}")


def report_evaluation(study: "Study", name: str) -> None:
    """Print what an autoencoder keeps at each step and of each concept, and which steps its gate closes."""
    from dashboards.summaries import evaluation_summary, kept_summary, stability_summary

    result = _where(study, f"evaluation-{name}")
    print_table(
        f"{name} at each step ({counted(int(result.attrs['held_out']), 'held-out clip')})",
        evaluation_summary(result),
    )
    for title, table in (
        ("Concept scores kept", kept_summary(result)),
        ("Features found by others, too", stability_summary(result)),
    ):
        if len(table):
            print_table(title, table)
    _say_next(study, f"sae effects {shlex.quote(name)}")


def report_effects(study: "Study", name: str) -> None:
    """Print what turning features off, or doubling them, does to their own concept and to the others."""
    from dashboards.summaries import effects_summary

    result = _where(study, name)
    names = ", ".join(result["sae"].values)
    print_table(
        f"Effects of features of {names}, scorer {result['scorer'].values[0]}", effects_summary(result)
    )


def report_steering(study: "Study", name: str) -> None:
    """Print what each way of steering does to the concept, and to the others."""
    from dashboards.summaries import steering_summary, steering_summary_notes
    from dashboards.wording import steering_notes

    result = _where(study, name)
    print_table(
        f"Steering {result.attrs['concept']} towards {result.attrs['positive']} "
        f"({counted(result.sizes['pair'], 'pair')}, scorer {result['scorer'].values[0]})",
        steering_summary(result),
    )
    for sentence in (*steering_summary_notes(result), *steering_notes(result)):
        _say(sentence)
    _say_next(study, "dashboard")


def report_benchmark(study: "Study", name: str, published: "pd.DataFrame | None" = None) -> None:
    """Print what each method does by each judge; with the published protocol, or `published` areas, those beside."""
    from dashboards.summaries import benchmark_summary, published_summary
    from dashboards.wording import deaf_sentences, distance_sentence

    result = _where(study, name)
    is_strict = result.attrs["protocol"] == "strict"
    for scorer in result["scorer"].values.tolist():
        if is_strict and len(table := benchmark_summary(result, scorer)):
            print_table(f"Methods of steering, judge {scorer}", table)
        if not is_strict or published is not None:
            print_table(f"TADA's areas, judge {scorer}", published_summary(result, scorer, published))
        for sentence in deaf_sentences(result, scorer) if is_strict else ():
            _say(sentence)
    if is_strict:
        for measure in result["measure"].values.tolist():
            _say(distance_sentence(result, measure))
    for sentence in result.attrs.get("warnings", "").splitlines():
        _say(sentence)
    _say_next(study, "dashboard")


def _where(study: "Study", name: str) -> "xr.Dataset":
    """Print the location of a result, and return it."""
    from dashboards.results import load_result

    _say(f"Result: {study.path / 'results' / name}.nc")
    return load_result(study, name)


def _say(sentence: str) -> None:
    output.print(sentence, soft_wrap=True)


def _say_next(study: "Study", *commands: str) -> None:
    """Print the commands to run next, with the study's folder quoted for the shell."""
    folder = shlex.quote(str(study.path))
    lines = "\n".join(f"  workbench {_with_folder(command, folder)}" for command in commands)
    _say(f"Next:\n{lines}")


def _with_folder(command: str, folder: str) -> str:
    """Put the study's folder behind the command's name, which may have two words."""
    words = command.split(" ")
    n = 2 if words[0] in ("sae", "steer") else 1
    return " ".join([*words[:n], folder, *words[n:]])
