"""Options are made of a spec's fields, and what the commands offer is what their specs have."""

from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from analyses.patching.spec import QUESTIONS, PatchingSpec, Screening
from analyses.probes.spec import ProbeSpec
from analyses.sae.spec import TrainSettings
from workbench.cli.main import app
from workbench.cli.options import offers
from workbench.cli.parsing import CommandLine, Commands
from workbench.engine.settings import GenerationSettings
from workbench.sae.settings import SETTINGS
from workbench.studies.request import StudyRequest


class Recipe(BaseModel):
    """A spec of every kind of field."""

    dish: str = Field(description="Dish to cook.")
    guests: Annotated[int, Field(ge=1)] = Field(4, le=12, description="Guests at the table.")
    heat: float = Field(0.5, gt=0, lt=1, description="Heat of the stove.")
    course: Literal["first", "main"] = Field("main", description="Course of the meal.")
    chef_name: str = Field("Ada", description="Cook.")
    herbs: tuple[str, ...] = Field((), description="Herb to add.")
    sauces: tuple[Literal["hot", "mild"], ...] = Field(("mild",), description="Sauce to serve.")
    price_level: int = Field(2, description="Price.")
    notes: str = "not offered"


@pytest.fixture
def cooked() -> list[dict[str, Any]]:
    """What the command `cook` was given."""
    return []


@pytest.fixture
def kitchen(cooked: list[dict[str, Any]]) -> CommandLine:
    line = CommandLine(cls=Commands)

    @line.command()
    @offers(Recipe, price_level="--price")
    @offers(Screening, "screen_")
    def cook(kitchen: str, quick: bool = False, **asked: Any) -> None:
        cooked.append({"kitchen": kitchen, "quick": quick, **asked})

    @line.command()
    def wash() -> None:
        """So that there are several commands."""

    return line


def options(line: typer.Typer, command: str) -> dict[str, Any]:
    """A command's parameters by the names that it gets their values by."""
    found: Any = typer.main.get_command(line)
    for name in command.split():
        found = found.commands[name]
    return {each.name: each for each in found.params}


def test_the_help_says_defaults_and_which_spec_has_an_option() -> None:
    made = options(app, "sae train")
    assert made["widths"].help.endswith("Default: 1, 3, 7 and 15 of 32. Repeatable. (matryoshka_batchtopk)")
    assert made["sparsity"].help.endswith(" (jumprelu; default l0)")
    assert not any("default ()" in str(each.help) for each in made.values())


def test_names_defaults_help_and_bounds_are_the_fields(kitchen: CommandLine) -> None:
    made = options(kitchen, "cook")
    assert {name: each.opts for name, each in made.items() if name not in ("kitchen", "quick")} == {
        "dish": ["--dish"],
        "guests": ["--guests"],
        "heat": ["--heat"],
        "course": ["--course"],
        "chef_name": ["--chef"],
        "herbs": ["--herb"],
        "sauces": ["--sauce"],
        "price_level": ["--price"],
        "screen_pairs": ["--screen-pairs"],
        "screen_top": ["--screen-top"],
        "screen_sample": ["--screen-sample"],
    }
    assert [made["dish"].required, made["guests"].required] == [True, False]
    assert {name: made[name].default for name in ("guests", "heat", "chef_name", "herbs", "sauces")} == {
        "guests": 4, "heat": 0.5, "chef_name": "Ada", "herbs": [], "sauces": ["mild"],
    }  # fmt: skip
    assert made["sauces"].help == "Sauce to serve. Repeatable."
    told = CliRunner().invoke(kitchen, ["cook", "--help"], env={"COLUMNS": "200"}).output
    for words in ("[1<=x<=12]", "<first|main>", "<hot|mild>", "Herb to add.", "[default: mild]"):
        assert words in told, words


def test_the_command_gets_every_value(kitchen: CommandLine, cooked: list[dict[str, Any]]) -> None:
    words = (
        "cook here --dish soup --guests 7 --herb dill --herb mint --chef Bo --price 3 --quick --screen-top 2"
    )
    assert CliRunner().invoke(kitchen, words.split()).exit_code == 0
    assert cooked == [
        {
            "kitchen": "here",
            "quick": True,
            "dish": "soup",
            "guests": 7,
            "heat": 0.5,
            "course": "main",
            "chef_name": "Bo",
            "herbs": ["dill", "mint"],
            "sauces": ["mild"],
            "price_level": 3,
            "screen_pairs": 4,
            "screen_top": 2,
            "screen_sample": 8,
        }
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--guests", "13"), "'--guests': it must be at most 12, not '13'."),
        (("--guests", "0"), "'--guests': it must be at least 1, not '0'."),
        (("--guests", "two"), "'--guests': it must be a whole number, not 'two'."),
        (("--course", "last"), "'--course': 'last' is not one of 'first', 'main'."),
        (("--herb", ""), "'--herb': it must not be empty: give a value, or leave it out."),
        (("--notes", "x"), "No such option: --notes"),
        (("--guests", "3", "--guests", "4"), "'--guests': it is given twice; give it once."),
        (
            ("--herb", "dill", "--herb", "mint", "--herb", "dill"),
            "'--herb': it is given twice; give it once.",
        ),
        (("--quick", "--quick"), "'--quick': it is given twice; give it once."),
    ],
    ids=str,
)
def test_what_a_field_does_not_take_is_refused(
    kitchen: CommandLine, cooked: list[dict[str, Any]], words: tuple[str, ...], sentence: str
) -> None:
    refused = CliRunner().invoke(kitchen, ["cook", "here", "--dish", "soup", *words], env={"COLUMNS": "200"})
    assert refused.exit_code == 2
    assert sentence in " ".join(refused.output.replace("│", " ").split())
    assert cooked == []


@pytest.mark.parametrize(
    ("command", "spec", "elsewhere"),
    [
        (
            "patch",
            PatchingSpec,
            {
                "directions",
                "screening",
                "custom_arms",
                "pairs_hash",
                "judges",
                "schema_version",
            },
        ),
        ("trace", StudyRequest, {"settings", "site_dtypes"}),
        ("trace", GenerationSettings, {"options"}),
        ("probe", ProbeSpec, set()),
        ("sae train", TrainSettings, set()),
        *(("sae train", each, {"d_out"} & each.model_fields.keys()) for each in SETTINGS),
    ],
)
def test_commands_offer_their_whole_spec(command: str, spec: type[BaseModel], elsewhere: set[str]) -> None:
    assert spec.model_fields.keys() - options(app, command).keys() == elsewhere


def test_questions_are_those_of_the_list() -> None:
    assert options(app, "patch")["question"].type_descriptor.choices == tuple(QUESTIONS)
