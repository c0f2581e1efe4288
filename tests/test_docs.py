"""The documentation against the code: commands, options, examples, links, and what must be named."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from tests.result_kinds import written_kinds
from workbench.cli.main import app
from workbench.engine.sites import PARTS
from workbench.prompts.prompt_sets import PromptSet
from workbench.scorers import SCORERS
from workbench.scorers.distances import DISTANCES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = [
    *(ROOT / f"{stem}.md" for stem in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted(DOCS.rglob("*.md")),
]
OUR_PACKAGES = ("cache", "workbench", "analyses", "dashboards")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z]+:")


def name(document: Path) -> str:
    """A document's path as a test's name."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """The document's fenced blocks in a language."""
    return [text for found, text in _BLOCK.findall(document.read_text(encoding="utf-8")) if found == language]


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def shell_lines(document: Path) -> Iterator[list[str]]:
    """Words of every line of the document's shell blocks (continued lines joined) and of its inline code."""
    for block in blocks(document, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)
    for code in re.findall(r"`([^`\n]+)`", prose(document)):
        if code.startswith(("workbench ", "make ")):
            yield shlex.split(code)


def lines_of(program: str) -> list[Any]:
    """A parameter (document, words after the program) for every line that calls it."""
    return [
        pytest.param(words[1:], id=f"{name(document)}: {shlex.join(words)}")
        for document in DOCUMENTS
        for words in shell_lines(document)
        if words and Path(words[0]).name == program
    ]


@cache
def program() -> Any:
    """The whole command line; made once, which takes longer than most checks of a line."""
    return typer.main.get_command(app)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words after them."""
    command = program()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def commands() -> dict[str, Any]:
    """Every command that is no group, by its full name."""
    found: dict[str, Any] = {}
    groups: dict[str, Any] = {"workbench": program()}
    while groups:
        full_name, group = groups.popitem()
        for short_name, command in group.commands.items():
            (groups if hasattr(command, "commands") else found)[f"{full_name} {short_name}"] = command
    return found


@pytest.mark.parametrize("words", lines_of("workbench"))
def test_command_lines_parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "torch.cuda.device_count", lambda: 1
    )  # which devices are there is checked while parsing
    command, rest = find_command([word for word in words if word != "--help"])
    if not rest:
        return  # a command that is only named
    assert not hasattr(command, "commands"), f"workbench has no command '{' '.join(words)}'"
    command.make_context("workbench", rest)  # raises for unknown options, bad values and what is missing


@pytest.mark.parametrize("words", lines_of("make"))
def test_make_targets_exist(words: list[str]) -> None:
    (target,) = [word for word in words if "=" not in word]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_pages_call_both_programs() -> None:
    called = {
        program: [parameter.values[0] for parameter in lines_of(program)] for program in ("make", "workbench")
    }
    assert ["demo"] in called["make"]
    assert ["test"] in called["make"]
    assert {words[0] for words in called["workbench"] if words} >= {
        full_name.split()[1] for full_name in commands()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(prose(document)):
        if _ELSEWHERE.match(target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.is_file(), f"{target} does not exist"
        if anchor:
            assert anchor in headings(file), f"{target}: there is no such heading"


def headings(document: Path) -> set[str]:
    """Anchors of a document's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_the_site_has_every_page() -> None:
    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for child in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from pages(child)

    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    written = sorted(document.relative_to(DOCS).as_posix() for document in DOCS.rglob("*.md"))
    assert sorted(pages(settings["nav"])) == written
    assert settings["theme"]["font"] is False, "the site must load nothing from elsewhere"


@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if blocks(document, "yaml")], ids=name
)
def test_prompt_sets_are_valid(document: Path) -> None:
    for block in blocks(document, "yaml"):
        prompts = PromptSet.model_validate(yaml.safe_load(block))
        assert prompts.fill(2, seed=0)
        assert all(prompts.pairs(concept, 2, seed=0) for concept in prompts.concepts)


def module_file(module: str) -> Path | None:
    """File of one of our modules, or None when there is no such module."""
    stem = ROOT / module.replace(".", "/")
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


def exists(module: str, attribute: str) -> bool:
    """Whether a module of ours has this submodule or defines or imports this name; nothing is imported."""
    file = module_file(module)
    if file is None or module_file(f"{module}.{attribute}"):
        return file is not None
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return attribute in names


@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if blocks(document, "python")], ids=name
)
def test_python_examples_import_what_exists(document: Path) -> None:
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OUR_PACKAGES):
                assert all(exists(str(node.module), alias.name) for alias in node.names), ast.unparse(node)


def test_the_python_reference_names_what_exists() -> None:
    text = (DOCS / "reference/python.md").read_text(encoding="utf-8")
    identifiers = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert set(OUR_PACKAGES) == {identifier.partition(".")[0] for identifier in identifiers}
    for identifier in identifiers:
        module, _, attribute = identifier.rpartition(".")
        assert exists(module, attribute), identifier


def documented_options(command: str) -> dict[str, str]:
    """First and second cell of the rows of a command's table, without the backticks."""
    text = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    section = re.search(rf"^#+ {command}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"docs/reference/cli.md has no heading '{command}'"
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|", section[1], re.MULTILINE)
    return {first.replace("`", ""): second.replace("`", "") for first, second in rows}


def option_names(parameter: Any) -> str:
    """An argument's or option's name as the reference writes it."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    return " / ".join([*parameter.opts, *parameter.secondary_opts])


def option_default(parameter: Any) -> str:
    """Its default as the reference writes it."""
    if parameter.required:
        return "required"
    if isinstance(parameter.default, bool):
        if not parameter.secondary_opts:
            return "on" if parameter.default else "off"
        return (parameter.opts if parameter.default else parameter.secondary_opts)[0]
    if isinstance(parameter.default, list):
        return ", ".join(map(str, parameter.default)) or "–"
    return "–" if parameter.default in (None, "") else str(parameter.default)


@pytest.mark.parametrize("command", sorted(commands()))
def test_the_command_line_reference_is_complete(command: str) -> None:
    expected = {
        option_names(parameter): option_default(parameter)
        for parameter in commands()[command].params
        if parameter.name != "help"
    }
    assert documented_options(command) == expected


def test_judges_and_distances_are_described() -> None:
    page = (DOCS / "reference" / "judges-and-distances.md").read_text(encoding="utf-8")
    assert [name for name in (*SCORERS, *DISTANCES) if f"| `{name}` |" not in page] == []


def test_results_figures_and_sites_are_described() -> None:
    from dashboards.figures import FIGURES  # imports every drawing library: seconds
    from dashboards.result_commands import COMMANDS
    from dashboards.results import STORED_KINDS

    results = (DOCS / "reference/results.md").read_text(encoding="utf-8")
    for kind in COMMANDS.keys() - {"published"}:  # which is among what is imported
        assert re.search(rf"^## `({kind}|{STORED_KINDS[kind]})(-<name>)?`$", results, re.MULTILINE), kind
    assert all(f"| `{figure}` |" in results for figure in FIGURES)
    models = (DOCS / "reference/models.md").read_text(encoding="utf-8")
    assert all(f"`{part}`" in models for part in PARTS)


def test_every_schema_version_is_that_of_the_code() -> None:
    named = [
        found
        for document in DOCUMENTS
        if document.name != "CHANGELOG.md"  # which tells of earlier ones, too
        for found in re.findall(
            r"[Kk]ind\s+`([\w-]+)`,\s+schema\s+version\s+(\d+)", document.read_text(encoding="utf-8")
        )
    ]
    assert sorted(named) == sorted((kind, str(version)) for kind, version in written_kinds().items())


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("contents", [ROOT / "README.md", DOCS / "index.md"], ids=name)
def test_every_guide_and_reference_is_listed(contents: Path) -> None:
    listed = {(contents.parent / target).resolve() for target in _LINK.findall(prose(contents))}
    pages = {*(DOCS / "how-to").glob("*.md"), *(DOCS / "reference").glob("*.md")}
    assert pages - listed == set()
