"""A report in headless Chromium: it loads alone and in silence, and what one clicks, hovers and chooses works."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from fastpdr import report

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("plotly")

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

ARGUMENTS = [
    *("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
EVIL = "</script><b>cat</b> & co"
NAMES = np.array(["ant", "bee", EVIL])
# Three clouds far apart, so that it is known where a point of each is.
CENTERS = np.array([[0, 0], [10, 0], [0, 10]])
N = 90
codes = np.arange(N) % 3
Z = CENTERS[codes] + np.random.default_rng(0).normal(scale=0.3, size=(N, 2))
LENGTH = np.linspace(0, 8, N)
held_out = np.arange(N) >= 60


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium, tmp_path_factory):
    """Write a report and open it; at the end hold all to what they promise: no network, nothing to complain of."""
    pages = []

    def open_report(*arguments, context=None, **settings):
        path = tmp_path_factory.mktemp("report") / "report.html"
        report.write(path, *arguments, **settings)
        page = chromium.new_page(**{"viewport": {"width": 1100, "height": 700}} | (context or {}))
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        pages.append((page, said, asked))
        page.goto(path.as_uri())
        page.wait_for_selector("#map[data-ready]")
        return page

    yield open_report
    for page, said, asked in pages:
        page.close()
        # What the drawing without a GPU says of itself.
        assert [line for line in said if "GPU stall" not in line] == []
        assert [url.split(":")[0] for url in asked if not url.startswith(("data:", "blob:"))] == ["file"]


@pytest.fixture(scope="module")
def kinds_page(opened):
    curve = np.linspace(0.6, 0, N - 2)
    return opened(
        Z,
        NAMES[codes],
        columns={"length": LENGTH},
        held_out=held_out,
        scores={"training": {"trustworthiness": 0.95}, "held out": {"trustworthiness": 0.9}},
        rnx={"training": curve, "held out": curve[:28]},
        loss=[3.0, 2.0, 1.5],
        config="model:\n  method: tsne\n",
        versions={"fastpdr": "1.2.3"},
    )


@pytest.fixture
def page(kinds_page):
    """The report of three classes, as it is after loading: what takes longest is loading one."""
    kinds_page.mouse.move(0, 0)
    for name, label in (("column", "length"), ("column", "label"), ("rows", "all")):
        kinds_page.select_option(f"#{name}", label=label)
    axes = '{"xaxis.autorange": true, "yaxis.autorange": true}'
    kinds_page.evaluate(f"Plotly.relayout(document.getElementById('map'), {axes})")
    return kinds_page


def drawn(page, below=False):
    """How many points each trace has; the first is the grey ones below."""
    sizes = page.evaluate("document.getElementById('map')._fullData.map((trace) => trace._length ?? trace.x.length)")
    return sizes if below else sizes[1:]


def pixel_of(page, place):
    """Where on the screen a place of the map is."""
    return page.evaluate(
        """([x, y]) => {
          const map = document.getElementById("map");
          const { left, top } = map.getBoundingClientRect();
          const { xaxis, yaxis } = map._fullLayout;
          return [left + xaxis._offset + xaxis.d2p(x), top + yaxis._offset + yaxis.d2p(y)];
        }""",
        list(map(float, place)),
    )


def colors_at(page, center):
    """The colours, other than white, in a square of 30 pixels around a place of the map."""
    import io

    from matplotlib.image import imread

    x, y = pixel_of(page, center)
    clip = {"x": x - 15, "y": y - 15, "width": 30, "height": 30}
    pixels = imread(io.BytesIO(page.screenshot(clip=clip)))[..., :3].reshape(-1, 3)
    return pixels[pixels.min(axis=1) < 0.9]


def is_colorful(pixels):
    return len(pixels) > 0 and np.ptp(pixels, axis=1).max() > 0.3


def settle(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def entry(page, name):
    return page.locator("#legend button", has=page.locator(".name", has_text=name))


def test_the_points_are_on_the_screen(page):
    assert sum(drawn(page)) == N
    settle(page)
    for center in CENTERS:
        assert is_colorful(colors_at(page, center))
    assert len(colors_at(page, [5, 5])) == 0
    assert page.evaluate("document.querySelectorAll('#map .gl-canvas').length") > 0


def test_hover_tells_label_and_row(page):
    row = 62
    page.mouse.move(*pixel_of(page, Z[row]))
    page.locator("#tooltip").wait_for(state="visible")
    assert page.locator("#tooltip").inner_text() == f"row {row} (held out)\nlabel: {EVIL}"
    page.mouse.move(*pixel_of(page, [5, 5]))
    page.locator("#tooltip").wait_for(state="hidden")


def test_the_legend_hides_shows_and_isolates(page):
    names = page.locator("#legend .name").all_inner_texts()
    assert names == [EVIL, "ant", "bee"]
    entry(page, "bee").click()
    assert drawn(page) == [30, 30]
    assert entry(page, "bee").get_attribute("aria-pressed") == "false"
    settle(page)
    assert not is_colorful(colors_at(page, CENTERS[1]))
    assert is_colorful(colors_at(page, CENTERS[0]))
    page.wait_for_timeout(600)  # two clicks sooner after one another are a double click
    entry(page, "bee").click()
    assert drawn(page) == [30, 30, 30]
    page.wait_for_timeout(600)
    entry(page, "ant").dblclick()
    assert drawn(page) == [30]
    pressed = page.locator("#legend button").evaluate_all("(all) => all.map((each) => each.ariaPressed)")
    assert pressed == ["false", "true", "false"]
    page.wait_for_timeout(600)
    entry(page, "ant").dblclick()
    assert drawn(page) == [30, 30, 30]


def test_the_column_of_the_colours_can_be_chosen(page):
    options = page.locator("#column option").all_inner_texts()
    assert options == ["label", "length", "training or held out"]
    page.select_option("#column", label="length")
    assert drawn(page) == [N]
    assert page.locator("#legend .scale").inner_text().split() == ["0", "8"]
    # The legend takes another room now: the map follows.
    fits = "document.querySelector('#map svg').clientWidth === document.getElementById('map').clientWidth"
    page.wait_for_function(fits)
    settle(page)
    assert is_colorful(colors_at(page, CENTERS[0]))
    page.mouse.move(*pixel_of(page, Z[4]))
    page.locator("#tooltip").wait_for(state="visible")
    assert page.locator("#tooltip").inner_text().split("\n") == ["row 4", "label: bee", f"length: {LENGTH[4]:.4g}"]
    page.select_option("#column", label="training or held out")
    assert drawn(page) == [60, 30]
    assert page.locator("#legend .count").all_inner_texts() == ["30", "60"]


def test_held_out_rows_alone_with_the_others_in_grey(page):
    page.select_option("#rows", label="held out")
    assert drawn(page, below=True) == [60, 10, 10, 10]
    page.select_option("#rows", label="training")
    assert drawn(page, below=True) == [30, 20, 20, 20]
    page.select_option("#rows", label="all")
    assert drawn(page) == [30, 30, 30]


def test_pan_and_zoom(page):
    def extent():
        return page.evaluate("document.getElementById('map')._fullLayout.xaxis.range")

    before = extent()
    x, y = pixel_of(page, [5, 5])
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 100, y, steps=3)
    page.mouse.up()
    panned = extent()
    assert panned[0] < before[0]
    assert np.ptp(panned) == pytest.approx(np.ptp(before))
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"Math.abs({panned[0]} - document.getElementById('map')._fullLayout.xaxis.range[0]) > 0.1")
    assert np.ptp(extent()) < np.ptp(panned)
    zoomed = extent()
    page.select_option("#column", label="length")
    assert extent() == pytest.approx(zoomed)


def test_curves_table_and_settings(page):
    assert page.locator("#loss .scatterlayer path.js-line").count() == 1
    assert page.locator("#rnx .scatterlayer path.js-line").count() == 2
    assert page.locator("#rnx .legendtext").all_text_contents() == ["training", "held out"]
    assert " ".join(page.locator("table").inner_text().split()) == "training held out trustworthiness 0.9500 0.9000"
    page.locator("summary").click()
    assert page.locator("pre").inner_text() == "model:\n  method: tsne\n"


def test_many_classes_are_written_on_the_map_where_there_is_room(opened):
    centers = np.array([(i % 6, i // 6) for i in range(30)]) * 10.0
    labels = np.array(["<b>0</b>", *(f"kind {i}" for i in range(1, 30))])
    page = opened(np.repeat(centers, 3, axis=0), np.repeat(labels, 3))
    written = page.locator("#map .annotation-text")
    written.first.wait_for()
    assert set(written.all_text_contents()) == set(labels)
    entry(page, "kind 17").click()
    page.wait_for_function("document.querySelectorAll('#map .annotation-text').length === 29")
    assert "kind 17" not in written.all_text_contents()
    page.evaluate("Plotly.relayout(document.getElementById('map'), {'xaxis.range': [-900, 900]})")
    page.wait_for_function("document.querySelectorAll('#map .annotation-text').length < 10")


def test_on_a_telephone_without_labels_for_some(opened):
    screen = {"viewport": {"width": 360, "height": 700}, "has_touch": True}
    page = opened(Z, np.array(["a", None, "b"], dtype=object)[codes], context=screen)
    assert page.locator("#legend .name").all_inner_texts() == ["a", "b", "none"]
    assert drawn(page) == [30, 30, 30]
    assert not page.locator("#column").is_visible()
    page.touchscreen.tap(*pixel_of(page, Z[2]))
    page.locator("#tooltip").wait_for(state="visible")
    assert page.locator("#tooltip").inner_text() == "row 2\nlabel: b"


def test_rows_with_a_word_each_have_one_colour(opened):
    words = np.array([f"word {i}" for i in range(120)])
    page = opened(np.column_stack([np.arange(120), np.arange(120) % 7]), words)
    assert drawn(page) == [120]
    assert page.locator("#legend button").count() == 0
    assert is_colorful(colors_at(page, [60, 60 % 7]))
    page.mouse.move(*pixel_of(page, [119, 0]))
    page.locator("#tooltip").wait_for(state="visible")
    assert page.locator("#tooltip").inner_text() == "row 119\nlabel: word 119"


def test_a_single_point_and_nothing_else(opened):
    page = opened([[1.0, 2.0]])
    assert drawn(page) == [1]
    assert not page.locator("#column").is_visible()
    assert not page.locator("#rows").is_visible()
    assert page.locator("#legend button").count() == 0
    page.mouse.move(*pixel_of(page, [1.0, 2.0]))
    page.locator("#tooltip").wait_for(state="visible")
    assert page.locator("#tooltip").inner_text() == "row 0"


def test_nothing_is_wider_than_the_screen(opened):
    page = opened(
        Z,
        np.array(["a name that is much longer than a telephone is wide, and longer still"] * N),
        held_out=held_out,
        scores={"training": {"trustworthiness": 0.95}, "held out": {"trustworthiness": 0.9}},
        config="key: " + "long " * 100,
        title="Title" * 30,
    )
    page.locator("summary").click()
    for width in (360, 1000, 1800):
        page.set_viewport_size({"width": width, "height": 700})
        # Plotly waits a little before it follows.
        page.wait_for_function(f"document.documentElement.scrollWidth <= {width}", timeout=5000)
