"""Sites: parsing, order, wildcards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import UserError
from workbench.engine.sites import PARTS, Site, parse_block, parse_blocks, parse_sites

sites = st.builds(Site, st.integers(0, 99), st.sampled_from(PARTS))


@given(sites)
def test_text_round_trip(site: Site) -> None:
    assert Site.parse(str(site)) == site


@given(sites, sites)
def test_order_is_block_then_part(a: Site, b: Site) -> None:
    assert (a.order < b.order) == ((a.block, PARTS.index(a.part)) < (b.block, PARTS.index(b.part)))


def test_wildcards_give_every_block_once_in_order() -> None:
    names = [str(site) for site in parse_sites(["*.mlp", "tf0.mlp", "tf1.self_attn"], 3)]
    assert names == ["tf0.mlp", "tf1.self_attn", "tf1.mlp", "tf2.mlp"]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["tf3"], "'tf3' is not a site"),
        (["tf3.attention"], "'tf3.attention' is not a site"),
        (["block3.mlp"], "is not a site"),
        (
            ["tf3.*"],
            r"'tf3\.\*' is not a site.* A \* stands for every block, as in \*\.cross_attn, never for a part",
        ),
        (["*.*"], r"'\*\.\*' is not a site.* A \* stands for every block"),
        (["*"], r"'\*' is not a site.* A \* stands for every block"),
        (["*.door"], r"'\*\.door' is not a site"),
        (["tf04.mlp"], "'tf04.mlp' is not a site"),
        (["tf٣.mlp"], "is not a site"),
        (["tf8.mlp"], "Block tf8 does not exist; this model has tf0 to tf7"),
        ([], "Give at least one site"),
    ],
)
def test_bad_sites(texts: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_sites(texts, 8)


@pytest.mark.parametrize("text", ["tf04", "tf00", "tf²", "tf"])
def test_a_block_has_one_spelling(text: str) -> None:
    with pytest.raises(UserError, match="is not a block"):
        parse_block(text)
    with pytest.raises(UserError, match="is not a set of blocks"):
        parse_blocks(f"tf1+{text}")
    assert parse_blocks("tf0+tf10") == (0, 10)
