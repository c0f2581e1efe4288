"""What of the selection in the URL the features of an autoencoder can be ranked and filtered by.

The rest has no effect, and the remarks above the page name it.
"""

from dashboards.feature_browser import AREA_FORM, area_corners
from dashboards.pages.feature_ranking import offered_values
from dashboards.pages.page import Query
from workbench.studies.study import Study


def usable(study: Study, name: str, query: Query) -> dict[str, str]:
    """The selection without concept values that features have no scores for, and without a malformed area."""
    offered = offered_values(study, name, query)
    is_ranked = query.get("value") in offered["value"]
    dropped = {
        "value": not is_ranked,
        "against": not (is_ranked and query.get("against") in offered["against"]),
        "area": area_corners(query.get("area", "")) is None,
    }
    return {part: asked for part, asked in query.items() if not dropped.get(part)}


def area_choices(query: Query) -> list[str] | str:
    """The area in the URL, or what an area is if it is none."""
    area = query.get("area", "")
    return AREA_FORM if area_corners(area) is None else [area]
