"""Links of a built site: what leads nowhere is found, file and anchor, letter for letter; what is well passes."""

import pytest
from threefactors.publishing import links

GOOD = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>A</title>
<link rel="stylesheet" href="../_static/custom.css?digest=1f2e">
<script src="../_static/frames.js"></script></head><body>
<a href="#top">up</a> <a href="#">up</a> <a href="">here</a> <a href="#law">the law</a> <a href="#t%C3%A9l">far</a>
<a href="20_width.html#claim-C3a">a claim</a> <a href="20_width.html?page=2#old&amp;true">an old anchor</a>
<a href="../data/a%20table.csv">data</a> <a href="../book/">all</a> <a href="../_sources/10_law.ipynb#x">source</a>
<img src="../_images/a.svg" srcset="../_images/a.svg 1x, ../_images/a.svg 2x" alt="a">
<img src="data:image/png;base64,AA==">
<a href="mailto:somebody@example.org">mail</a> <a href="javascript:void(0)">menu</a> <a href="#:~:text=law">words</a>
<a href="https://example.org/a#b">out</a> <a href="https://example.org/a#c">out</a> <a href="//example.org/b">out</a>
<form action="../search.html"></form><map><area href="20_width.html"></map>
<p id="law">Law</p><p id="tél"></p><script>"<a href='nowhere.html'>"</script><!-- <a href="nowhere.html"> -->
</body></html>"""


@pytest.fixture
def html(tmp_path):
    files = {
        "index.html": '<meta http-equiv="Refresh" content="0; url=book/10_law.html">',
        "book/10_law.html": GOOD, "book/20_width.html": '<tr id="claim-C3a"><td><a name="old&amp;true"></a></td></tr>',
        "_static/macros.html": '<a href="{{ nowhere }}">a template</a>', "_static/custom.css": "",
        "_static/frames.js": "", "search.html": "", "book/index.html": "", "data/a table.csv": "", "_images/a.svg": "",
        "_sources/10_law.ipynb": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def plant(html, link):
    page = html / "book" / "10_law.html"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{link}</body>"), encoding="utf-8")
    return links.dead(html)


def test_a_site_whose_links_all_lead_somewhere(html):
    assert links.dead(html) == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ('<a href="30_gone.html">', "'30_gone.html' leads to book/30_gone.html, which is not in the site"),
        ('<a href="30_gone.html#claim">', "book/30_gone.html, which is not in the site"),
        ('<img src="../_images/b.svg">', "_images/b.svg, which is not in the site"),
        ('<img srcset="../_images/a.svg 1x, ../_images/b.svg 2x">', "_images/b.svg, which is not in the site"),
        ('<script src="../_static/slides.js"></script>', "_static/slides.js, which is not in the site"),
        ('<link rel="stylesheet" href="../_static/none.css"/>', "_static/none.css, which is not in the site"),
        ('<map><area href="40.html"></map>', "book/40.html, which is not in the site"),
        ('<a href="#theorem">', "'#theorem' leads to an anchor that book/10_law.html does not have"),
        ('<a href="20_width.html#claim-C9">', "an anchor that book/20_width.html does not have"),
        ('<a href="20_Width.html">', "there is book/20_width.html, and case counts"),
        ('<a href="20_width.html#claim-c3a">', "there is claim-C3a, and case counts"),
        ('<a href="../../beside.html">', "leads to ../beside.html, which is not in the site"),
        ('<a href="/book/20_width.html">', "begins with a slash"),
        ('<a href="../data/">', "data/index.html, which is not in the site"),
        ('<meta http-equiv="refresh" content="0;url=gone.html">', "book/gone.html, which is not in the site"),
    ],
)
def test_a_link_that_leads_nowhere_is_named_with_its_page(html, link, said):
    (message,) = plant(html, link)
    assert message.startswith("book/10_law.html: ")
    assert said in message


def test_one_sentence_for_a_page_and_its_target_however_often(html):
    assert len(plant(html, '<a href="30_gone.html">' * 3)) == 1


def test_addresses_outside_are_listed_once_with_their_pages(html):
    assert links.external(html) == {
        "https://example.org/a": ["book/10_law.html"],
        "https://example.org/b": ["book/10_law.html"],
    }


def test_the_command_prints_what_is_outside_and_fails_for_what_is_dead_inside(html, capsys):
    assert links.main([str(html)]) == 0
    assert capsys.readouterr() == ("https://example.org/a\nhttps://example.org/b\n", "")
    plant(html, '<a href="30_gone.html">')
    assert links.main([str(html)]) == 1
    seen = capsys.readouterr()
    assert seen.out.count("\n") == 2
    assert "book/10_law.html: '30_gone.html'" in seen.err


def test_a_folder_without_pages_is_no_site(tmp_path, capsys):
    with pytest.raises(ValueError, match="holds no page; name the folder of a built site"):
        links.dead(tmp_path)
    assert links.main([str(tmp_path)]) == links.main([]) == 2
    assert "usage" in capsys.readouterr().err
