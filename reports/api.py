"""Charts by name, for people in Python."""

from __future__ import annotations

import altair as alt

from pdvsim.documents import Document
from pdvsim.errors import InputError
from reports.page import styled
from reports.sections import SECTIONS


def chart(document: Document, name: str) -> alt.TopLevelMixin:
    """The chart of a section of the document's page, in the page's look.

    Raises:
        InputError: there is none of that name; the sentence says which there are.
    """
    drawn = {}
    for section in SECTIONS[document.kind]:
        content = section.content(document)
        if isinstance(content, alt.TopLevelMixin):
            drawn[section.title.lower()] = content
    if name.lower() not in drawn:
        known = ", ".join(drawn) or "none"
        raise InputError(f"no chart {name!r} in this {document.NAME}; there is: {known}")
    return styled(drawn[name.lower()])
