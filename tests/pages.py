"""What a browser sees on a page of the book: violations of accessibility, what it asked for, what scrolls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import BrowserContext, Page

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
GRAVE = {"serious", "critical"}
DRAWN = "async () => { await document.fonts.ready; await window.MathJax?.startup?.promise; }"
THEME = """mode => {
  document.documentElement.dataset.theme = document.documentElement.dataset.mode = mode;
  return Promise.all(document.getAnimations().map(running => running.finished));
}"""
# Contrast is most of axe's work, and what looks alike is alike: one element is asked for each look (tags and classes up
# to the body, styles of its own, odd and even rows). Style sheets are not to be fetched again (``preload``).
# Words in the very color of their ground axe takes for hidden on purpose; here they are a violation.
CHECK = """({contrast}) => {
  const hidden = node => node.any.some(check => check.data?.messageKey === "equalRatio");
  const look = e => e === document.body ? "" : look(e.parentElement) + "/" + e.tagName + "." + e.className
    + (e.getAttribute("style") ?? "") + (e.tagName === "TR" ? e.rowIndex % 2 : "");
  const looks = new Map();
  for (const e of contrast ? document.querySelectorAll("body *") : [])
    if ([...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
      looks.has(look(e)) || looks.set(look(e), e);
  const all = {rules: {"color-contrast": {enabled: false}}}, colors = {runOnly: ["color-contrast"]};
  return axe.run(contrast ? {include: [...looks.values()]} : document,
                 {...(contrast ? colors : all), resultTypes: ["violations", "incomplete"], preload: false})
    .then(({violations, incomplete}) => [
      ...violations.map(v => [v, v.nodes[0]]),
      ...incomplete.flatMap(v => v.nodes.filter(hidden).slice(0, 1).map(node => [v, node])),
    ].map(([v, node]) => [v.impact, v.id, node.target.join(" "), node.failureSummary]));
}"""
# wider than the screen, though every frame that may scroll does so by itself
SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# what scrolls sideways in a frame of its own, and cannot be reached by the Tab key
OUT_OF_REACH = """() => [...document.querySelectorAll("body *")].filter(e => e.tabIndex < 0 && e.checkVisibility()
    && e.scrollWidth > e.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
    && !e.querySelector("a[href], button, input, summary, [tabindex='0']")).map(e => e.tagName + "." + e.className)"""
# what MathJax draws inside an equation is one font in the color of the text, and half of a page's elements
BARE = "() => document.querySelectorAll('mjx-container > *').forEach(drawn => drawn.remove())"
OUTLINE = """() => ({
  title: document.title, language: document.documentElement.lang,
  levels: [...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")].map(h => Number(h.tagName[1])),
  silent: [...document.images].filter(i => !i.alt.trim()).map(i => i.src.slice(0, 80)),
  counts: ["p", "img", "table", "figure", "pre", "h2"].map(tag => document.querySelectorAll(`article ${tag}`).length),
})"""


@dataclass
class Watch:
    """Everything that goes wrong in a context: requests to others (kept from going there), failed ones, errors."""

    context: BrowserContext
    address: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def stop(route):
            self.wrong.append(f"third party: {route.request.url}")
            route.abort()

        self.context.route(lambda url: not url.startswith((self.address, "data:", "blob:")), stop)
        self.context.on("response", lambda r: r.status < 400 or self.wrong.append(f"{r.status}: {r.url}"))
        self.context.on("console", lambda said: said.type != "error" or self.wrong.append(f"console: {said.text}"))
        self.context.on("weberror", lambda error: self.wrong.append(f"error: {error.error}"))


def grave(page: Page) -> list[str]:
    """Serious and critical violations on the page, in light and in dark; its equations are gone afterwards."""
    page.evaluate(BARE)
    page.evaluate(AXE)
    found = page.evaluate(CHECK, {"contrast": False})
    for mode in ("light", "dark"):
        page.evaluate(THEME, mode)
        found += page.evaluate(CHECK, {"contrast": True})
    return [f"{page.url} {rule}: {where}; {why}" for impact, rule, where, why in found if impact in GRAVE]
