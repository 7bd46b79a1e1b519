"""A Sphinx extension: ``figure-again`` shows a figure of another page, with a caption and a number of its own.

MyST-NB pastes figures within one page only; across pages it pastes bare images, PNG alone and without a text
instead. Here the image node itself is taken over, with its text, its classes and its one file.

    ```{figure-again} fig-landing
    :name: fig-claim
    The caption, one paragraph.
    ```
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective


class Elsewhere(nodes.General, nodes.Element):
    """Holds the place of the image until all pages are read; ``figure``: the label of the other figure."""


class FigureAgain(SphinxDirective):
    """The directive; its argument is the name of the other figure, its content the caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged}  # noqa: RUF012  (docutils declares it so)

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        figure = nodes.figure("", Elsewhere("", figure=self.arguments[0]))
        self.set_source_info(figure)
        self.add_name(figure)
        parsed = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, parsed)
        figure += nodes.caption(parsed[0].rawsource, "", *parsed[0].children)
        return [figure]


class TakeOver(SphinxPostTransform):
    """Puts a copy of the other figure's image where one was asked for; ExtensionError where there is none."""

    default_priority = 5  # before the image converters

    def run(self, **options: Any) -> None:
        for place in list(self.document.findall(Elsewhere)):
            place.replace_self(self._image(place["figure"]))

    def _image(self, label: str) -> nodes.Node:
        page, anchor = self.env.get_domain("std").anonlabels.get(label, ("", ""))  # type: ignore[attr-defined]
        figures = self.env.get_doctree(page).findall(nodes.figure) if page else ()
        for figure in figures:
            if anchor in figure["ids"] and (image := next(figure.findall(nodes.image), None)):
                return image.deepcopy()
        raise ExtensionError(f"{self.env.docname}: no page has a figure named {label}; name one that a cell shows")


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_node(Elsewhere)
    app.add_directive("figure-again", FigureAgain)
    app.add_post_transform(TakeOver)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
