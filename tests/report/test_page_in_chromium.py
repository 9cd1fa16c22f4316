"""Pages in a real browser: nothing of a study runs, nothing is loaded, and the table does what it offers."""

import base64
import io
import time

import numpy as np
import pytest

from searchlib import FunctionObjective, RandomSearch, Search, Study, search
from searchlib.report.page import report_page, write_report
from searchlib.report.watch import StudyServer
from searchlib.spaces import Binary, Integer

WHERE = ("choice0", "choice1", "choice2", "part", "objective", "key", "nested", "algorithm", "budget", "version",
         "package", "error", "another", "reference", "note", "noted")  # fmt: skip


@pytest.fixture(scope="module")
def hostile_page(hostile_study, tmp_path_factory):
    return write_report(hostile_study, tmp_path_factory.mktemp("page") / "report.html").as_uri()


@pytest.fixture(scope="module")
def plain_page(tmp_path_factory):
    """120 candidates of 7 bits; their value is the number that the bits spell."""
    folder = tmp_path_factory.mktemp("plain")

    def spelled(bits):
        if bits[:3] == (1, 1, 1):
            raise ArithmeticError("three ones")
        return float(sum(bit << place for place, bit in enumerate(bits)))

    settings = {"space": Binary(7), "budget": 120, "direction": "maximize", "max_failures": 99}
    result = search(spelled, RandomSearch(), study=folder / "bits.db", **settings)
    with Study.open(folder / "bits.db") as study:
        (folder / "report.html").write_text(report_page(study), encoding="utf-8")
    return (folder / "report.html").as_uri(), result.history


def show(browser, url, *, width=1280, dark=False):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wanted = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    browser.get(url)
    return browser


def find(browser, selector):
    return browser.find_element("css selector", selector)


def every(browser, selector):
    return browser.find_elements("css selector", selector)


def column(browser, number):
    cells = f"document.querySelectorAll('#table tbody tr[data-row] td:nth-child({number})')"
    return browser.execute_script(f"return [...{cells}].map(cell => cell.innerText)")


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.15)
    return found


def use_everything(browser):
    """Press every button, open everything that opens, type into the filter."""
    browser.execute_script("""
        for (const details of document.querySelectorAll("details")) details.open = true;
        for (const button of document.querySelectorAll("#table th button, button.copy, #theme, figure button")) {
            button.click();
            document.querySelector("dialog").close();
        }
        getSelection().empty();
        const rows = [...document.querySelectorAll("#table tbody tr[data-row]")].map(row => row.dataset.row);
        for (const row of rows) document.querySelector(`tr[data-row="${row}"]`).click();
    """)
    assert len(every(browser, "tr.detail")) == 30
    find(browser, "#table input[type=search]").send_keys("<script>")
    until(lambda: len(every(browser, "#table tbody tr")) > 3)


def test_nothing_of_a_hostile_study_runs(chromium, hostile_page):
    browser = show(chromium, hostile_page)
    use_everything(browser)
    assert browser.execute_script("return window.hacked") is None
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.scripts.length") == 2
    assert {image.get_attribute("src")[:26] for image in every(browser, "img")} == {"data:image/svg+xml;base64,"}
    loaded = "return Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth)))"
    assert min(browser.execute_script(loaded)) > 100  # no name breaks a picture
    handlers = "return [...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).map(a => a.name)"
    names = set(browser.execute_script(handlers))
    assert {"class", "id", "src"} <= names
    assert not {name for name in names if name.startswith("on") or name in ("style", "srcdoc", "action")}
    assert browser.execute_script("return [...document.links].length") == 0


def test_every_hostile_text_is_there_to_be_read(chromium, hostile_page):
    browser = show(chromium, hostile_page)
    use_everything(browser)
    text = browser.execute_script("return document.body.innerText")
    for where in WHERE:
        assert f"{where} <script>window.hacked=" in text, where
    assert '<img src=x onerror="window.hacked=1">.db' in text
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_the_policy_forbids_scripts_that_get_in_and_all_loading(chromium, hostile_page):
    browser = show(chromium, hostile_page)
    browser.execute_script("""
        const script = document.createElement('script');
        script.textContent = 'window.entered = 1';
        document.body.append(script);
        const image = document.createElement('img');
        image.src = 'http://127.0.0.1:9/x.png';
        document.body.append(image);
        const link = document.createElement('div');
        link.innerHTML = '<p style="color: red" onclick="window.entered = 1">x</p>';
        document.body.append(link);
        link.firstChild.click();
    """)
    reached = browser.execute_async_script("""
        const done = arguments[0];
        fetch('http://127.0.0.1:9/').then(() => done('loaded'), error => done(String(error)));
    """)
    assert "Failed to fetch" in reached
    assert browser.execute_script("return window.entered") is None
    messages = [entry["message"] for entry in browser.get_log("browser")]
    for directive in ("script-src", "img-src", "connect-src", "style-src"):
        assert any(directive in message for message in messages), (directive, messages)


def test_a_page_loads_nothing(chromium, plain_page):
    browser = show(chromium, plain_page[0])
    seen = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in seen if not name.startswith("data:")] == []
    assert browser.get_log("browser") == []
    assert len(every(browser, "figure img")) >= 3


def test_a_click_sorts_and_another_one_turns_the_order(chromium, plain_page):
    url, history = plain_page
    browser = show(chromium, url)
    known = np.sort(history.values[np.isfinite(history.values[:, 0]), 0])
    assert [float(value) for value in column(browser, 4)] == known[::-1][:50].tolist()  # the best first
    button = find(browser, "#table th:nth-child(4) button")
    browser.execute_script("arguments[0].click()", button)
    assert [float(value) for value in column(browser, 4)] == known[:50].tolist()
    assert find(browser, "#table th:nth-child(4)").get_attribute("aria-sort") == "ascending"
    browser.execute_script("document.querySelector('#table th:nth-child(1) button').click()")
    assert column(browser, 1) == [str(number) for number in range(50)]


def test_candidates_without_a_value_come_last_either_way(chromium, plain_page):
    url, history = plain_page
    browser = show(chromium, url)
    for _ in range(2):
        turn = "const all = document.querySelectorAll('#table button'); all[all.length - 1].click()"
        for _ in range(len(history) // 50):
            browser.execute_script(turn)
        assert len(history) > 50
        assert column(browser, 4)[-5:] == ["–"] * 5
        assert history.failures > 5
        browser.execute_script("document.querySelector('#table th:nth-child(4) button').click()")


def test_filters_leave_what_matches(chromium, plain_page):
    url, history = plain_page
    browser = show(chromium, url)
    n, blamed = len(history), sum("three ones" in error for error in history.errors)
    assert blamed > 5
    box = find(browser, "#table input[type=search]")
    box.send_keys("THREE ones")
    count = find(browser, "#table .count")
    until(lambda: f"of {blamed} ({n} in all)" in count.text)
    assert set(column(browser, 3)) == {"failed"}
    box.clear()
    box.send_keys("(1, 0, 1, ")
    starts = int((history.population[:, :3] == (1, 0, 1)).all(axis=1).sum())
    until(lambda: f"of {starts} (" in count.text)
    assert starts > 5
    box.clear()
    box.send_keys(" ")
    until(lambda: f"of {n}" in count.text and "in all" not in count.text)
    low, high = every(browser, "#table .tools:first-child input[type=number]")
    low.send_keys("10")
    high.send_keys("20")
    values = history.values[:, 0]
    until(lambda: f"of {int(((values >= 10) & (values <= 20)).sum())} (" in count.text)
    assert all(10 <= float(value) <= 20 for value in column(browser, 4))


def test_pages_are_turned_and_a_row_opens(chromium, plain_page):
    url, history = plain_page
    browser = show(chromium, url)
    first = column(browser, 1)
    browser.execute_script("[...document.querySelectorAll('#table button')].at(-1).click()")
    second = column(browser, 1)
    assert len(first) == len(second) == 50
    assert not set(first) & set(second)
    assert find(browser, "#table .count").text == f"51–100 of {len(history)}"
    browser.execute_script("document.querySelector('#table tbody tr').click()")
    assert find(browser, "#table tr.detail pre").text.startswith("(")


def test_a_picture_opens_large(chromium, plain_page):
    browser = show(chromium, plain_page[0])
    small = find(browser, "figure img").size["width"]
    browser.execute_script("document.querySelector('figure button').click()")
    large = find(browser, "dialog img")
    assert large.is_displayed()
    assert large.size["width"] > 1.5 * small
    browser.execute_script("document.querySelector('dialog img').click()")
    assert find(browser, "dialog img").size["width"] > 2 * large.size["width"] * 0.45
    browser.execute_script("document.querySelector('dialog button').click()")
    assert not find(browser, "dialog").is_displayed()


def pixels(browser):
    from PIL import Image

    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("L"), np.float64)


@pytest.mark.parametrize("width", [1280, 375])
def test_a_screenshot_is_light_or_dark_and_never_blank_and_fits(chromium, plain_page, width):
    for dark in (False, True):
        browser = show(chromium, plain_page[0], width=width, dark=dark)
        browser.execute_script("document.querySelector('#pictures').scrollIntoView()")
        image = pixels(browser)
        ground = float(np.median(image))
        assert ground < 60 if dark else ground > 230
        assert (np.abs(image - ground) > 60).mean() > 0.01  # there is something to read
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_script("document.querySelector('#theme').click()")
    assert float(np.median(pixels(browser))) > 230


def matching_seven(history):
    return sum(place == 7 or "7" in str(int(value)) for place, value in enumerate(history.values[:, 0]))


def test_a_live_page_follows_its_search_and_keeps_what_the_reader_has_set(chromium, tmp_path):
    objective = FunctionObjective(float, Integer(0, 999), "maximize")
    run = Search(objective, RandomSearch(), budget=18, batch_size=6, study=tmp_path / "live.db")
    batches = iter(run)
    next(batches)
    with StudyServer(tmp_path / "live.db", interval=0.2) as server:
        browser = show(chromium, server.url)
        assert "6 of 18" in find(browser, ".facts").text
        assert find(browser, ".badge").text == "no result yet"
        find(browser, "#table input[type=search]").send_keys("7")
        count = find(browser, "#table .count")
        sevens = matching_seven(run.history)
        until(lambda: f"of {sevens} ({len(run.history)} in all)" in count.text)
        browser.execute_script("document.querySelector('#table th:nth-child(1) button').click()")
        browser.execute_script("document.querySelector('details').open = true")
        for _ in batches:
            pass
        run.result()
        until(lambda: "18 of 18" in find(browser, ".facts").text and find(browser, ".badge").text == "finished")
        sevens = matching_seven(run.history)
        until(lambda: f"of {sevens} ({len(run.history)} in all)" in find(browser, "#table .count").text)
        assert find(browser, "#table input[type=search]").get_attribute("value") == "7"
        assert find(browser, "#table th:nth-child(1)").get_attribute("aria-sort") == "ascending"
        assert find(browser, "details").get_attribute("open") is not None
        assert browser.get_log("browser") == []
        browser.get("about:blank")
