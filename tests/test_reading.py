"""The built book in a real browser: by eye, keyboard and screen reader, on a phone, in light and dark, scripts off.

Each test looks at all pages.
"""

from itertools import pairwise

import pytest
from threefactors.publishing.browser import served

from tests.pages import DRAWN, OUT_OF_REACH, OUTLINE, SIDEWAYS, Watch, grave

pytestmark = pytest.mark.slow
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
FOCUS = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  const around = e.closest("form, label, li, .tf-frames") ?? e;
  return {
    tag: e.tagName, id: e.id, kind: e.className, type: e.type ?? "", skip: !!e.closest(".skip-link"),
    nav: !!e.closest("nav.bd-links"), frames: !!e.closest(".tf-frames"), article: !!e.closest("article"),
    seen: style.outlineStyle !== "none" || style.boxShadow !== "none" || getComputedStyle(around).boxShadow !== "none"
      || style.textDecorationLine.includes("underline"),
  };
}"""
WEIGHT = """() => {
  const all = performance.getEntriesByType("resource"), [page] = performance.getEntriesByType("navigation");
  return {requests: all.length + 1, bytes: all.reduce((sum, r) => sum + r.encodedBodySize, page.encodedBodySize),
          milliseconds: page.loadEventEnd};
}"""


@pytest.fixture(scope="module")
def site(smoke_book):
    """The address of a server of the built book."""
    with served(smoke_book.html) as address:
        yield address


@pytest.fixture(scope="module")
def pages(smoke_book):
    """Every page that a reader opens, by its path in the site."""
    html = smoke_book.html
    return [p.relative_to(html).as_posix() for p in sorted([*html.glob("book/*.html"), *html.glob("[gs]e*.html")])]


@pytest.fixture(scope="module")
def watch(browser, site):
    """A window on a desk, in which whatever goes wrong is noted."""
    return Watch(browser.new_context(viewport=DESKTOP, reduced_motion="reduce"), site)


@pytest.fixture(scope="module")
def seen(watch, site, pages):
    """What each page is in that window, drawn once: its outline, what a phone makes of it, its violations."""
    found, page = {}, watch.context.new_page()
    for name in pages:
        page.set_viewport_size(PHONE)
        page.goto(site + name)
        page.evaluate(DRAWN)
        page.wait_for_timeout(400)  # tab stops follow the layout, the theme's after 300 ms
        found[name] = page.evaluate(OUTLINE)
        found[name] |= {"sideways": page.evaluate(SIDEWAYS), "lost": page.evaluate(OUT_OF_REACH)}
        page.set_viewport_size(DESKTOP)
        page.wait_for_timeout(400)
        found[name]["grave"] = grave(page)
    page.close()
    return found


def test_no_page_violates_accessibility(seen):
    assert [line for page in seen.values() for line in page["grave"]] == []


def test_pages_are_told_apart_by_title_language_headings_and_words_for_pictures(seen):
    assert len({page["title"] for page in seen.values()}) == len(seen) > 20
    for name, page in seen.items():
        assert page["language"] == "en", name
        assert page["silent"] == [], name
        levels = page["levels"]
        assert levels.count(1) <= 1, name
        assert all(deeper <= level + 1 for level, deeper in pairwise(levels)), name


def test_reading_asks_no_third_party_and_nothing_fails(seen, watch):
    assert watch.wrong == []


def test_planted_faults_are_seen(browser, site):
    """All the tests in this file can fail."""
    watch = Watch(browser.new_context(viewport=PHONE), site)
    page = watch.context.new_page()
    page.goto(site + "book/references.html")
    page.evaluate(
        """() => document.querySelector("article").insertAdjacentHTML("beforeend", `
          <p style="color: #bbb; background: #aaa">pale</p><p style="color: #444; background: #444">gone</p><img src="https://example.org/x.png">
          <div style="width: 900px">wide</div>
          <div style="overflow-x: auto; width: 99px"><p style="width: 999px">far away</p></div>`)"""
    )
    page.wait_for_timeout(200)
    assert {"color-contrast:", "1:1", "image-alt:"} <= {word for line in grave(page) for word in line.split()}
    assert page.evaluate(SIDEWAYS) > 400
    assert len(page.evaluate(OUT_OF_REACH)) == 1
    assert page.evaluate(OUTLINE)["silent"]
    page.evaluate("() => { fetch('missing.json'); setTimeout(() => { throw Error('planted'); }); }")
    page.wait_for_timeout(200)
    assert {line.split(":")[0] for line in watch.wrong} >= {"third party", "404", "error", "console"}
    watch.context.close()


def test_on_a_phone_no_page_scrolls_sideways_and_what_scrolls_in_it_is_reached(seen):
    assert {name: page["sideways"] for name, page in seen.items() if page["sideways"] > 0} == {}
    assert {name: page["lost"] for name, page in seen.items() if page["lost"]} == {}


def test_the_keyboard_reaches_everything(watch, site):
    page = watch.context.new_page()
    page.goto(site + "book/11_stationary.html")
    page.evaluate(DRAWN)
    reached = []
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUS))
        if reached[-1]["tag"] == "BODY":
            break
    assert reached[0]["skip"]
    assert any("search" in place["kind"] for place in reached)
    for where in ("nav", "frames", "article"):
        assert any(place[where] for place in reached), where
    assert {"A", "BUTTON", "SUMMARY"} <= {place["tag"] for place in reached}
    assert [place for place in reached if not place["seen"] and place["tag"] != "BODY"] == []
    fold = page.locator("article details > summary").first
    fold.focus()
    page.keyboard.press("Enter")
    assert fold.evaluate("e => e.parentElement.open")
    frames = page.locator(".tf-frames").first
    before = frames.locator("img:visible").get_attribute("alt")
    frames.locator("input:visible").first.focus()
    page.keyboard.press("ArrowRight")
    assert frames.locator("img:visible").count() == 1
    assert frames.locator("img:visible").get_attribute("alt") != before
    page.close()


def test_without_scripts_everything_is_there(browser, site, pages, seen):
    context = browser.new_context(viewport=DESKTOP, java_script_enabled=False)
    page = context.new_page()
    for name in [name for name in pages if name.startswith("book/")]:  # the search is a script
        page.goto(site + name)
        now = page.evaluate(OUTLINE)
        assert now["title"] == seen[name]["title"]
        assert all(a >= b > -1 for a, b in zip(now["counts"], seen[name]["counts"], strict=True)), name
        assert page.locator(".tf-noscript").count() == (page.locator("script[src*=mathjax]").count() > 0)
    page.goto(site + "book/11_stationary.html")
    assert page.locator(".tf-noscript").is_visible()
    assert r"\(" in page.locator("article").inner_text()
    frames = page.locator(".tf-frames").first
    before = frames.locator("img:visible").get_attribute("alt")
    frames.locator("label").first.click()
    assert frames.locator("img:visible").get_attribute("alt") != before
    page.locator("nav.bd-links a", has_text="From scratch").click()
    assert page.url.endswith("01_from_scratch.html")
    context.close()


def test_the_first_page_is_light(browser, site):
    """Time depends on the machine and its other work, so weight is what is bound."""
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(site, wait_until="load")
    page.wait_for_url("**/book/intro.html", wait_until="load")
    page.wait_for_function("() => performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
    weight = page.evaluate(WEIGHT)
    context.close()
    assert weight["bytes"] < 3.2e6, weight
    assert weight["requests"] <= 40, weight
