"""Every control of the page, used as a person would, in Chromium. HCROT_SCREENSHOTS=docs/view keeps pictures of what was seen."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.view_runs import save_two_networks

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PICTURES = os.environ.get("HCROT_SCREENSHOTS")
WAIT = 120_000  # ms: tests may share the machine with others
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("view") / "runs"


@pytest.fixture(scope="module")
def address(runs):
    """The command as a user starts it."""
    command = [sys.executable, "-m", "hcrot", "view", "--port", "0", "--runs", str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        yield re.search(r"http://\S+", server.stdout.readline())[0]
        server.send_signal(signal.SIGINT)
        assert "Traceback" not in server.stdout.read()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A new tab. Whatever the browser complains of, and a call to another server, fails the test."""
    context = browser.new_context(viewport={"width": 1180, "height": 820})
    context.set_default_timeout(WAIT)
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if not request.url.startswith((address, "data:", "blob:")) else None)
    page.goto(address)
    page.get_by_role("tab", name="Draw").wait_for()
    yield page
    context.close()
    assert faults == []


@pytest.fixture(scope="module", autouse=True)
def patience():
    expect.set_options(timeout=WAIT)


def seen(page, name):
    """Keep a picture, if somebody wants pictures."""
    if PICTURES:
        page.evaluate("document.querySelector('.scrub').style.position = 'static'")  # it would lie across the middle of a long page
        page.wait_for_timeout(200)
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def pixels(page, selector):
    """What a canvas shows."""
    return page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")


def press(page, *selectors):
    for selector in selectors:
        page.click(selector)


def test_draw(page):
    page.set_viewport_size({"width": 1180, "height": 940})
    holder, noisy, clean = page.locator("#draw [data-state]"), "[data-column='1'] canvas >> nth=0", "[data-column='1'] canvas >> nth=1"
    for digit in (0, 1, 6, 7):
        page.click(f"#draw-digits [data-label='{digit}']")
    page.fill("#steps-1", "8")
    page.click("#draw-run")
    expect(holder).to_have_attribute("data-state", "done")
    expect(page.locator("#draw-place")).to_have_text("step 8 of 8")
    end = pixels(page, clean)
    page.fill("#draw-scrub", "0")
    expect(page.locator("#draw-place")).to_have_text("step 0 of 8")
    assert pixels(page, noisy) != pixels(page, clean) != end
    page.fill("#draw-scrub", "1000")
    page.click("#draw-add")
    expect(holder).to_have_attribute("data-state", "done")
    assert pixels(page, "[data-column='2'] canvas >> nth=1") == end  # the same seed and all else: the same pictures
    page.select_option("#sampler-2", "ddim")
    page.fill("#guidance-2", "3")
    page.press("#guidance-2", "Enter")
    expect(holder).to_have_attribute("data-state", "done")
    assert pixels(page, "[data-column='1'] canvas >> nth=1") == end != pixels(page, "[data-column='2'] canvas >> nth=1")
    seen(page, "draw")
    before = pixels(page, "[data-column='2'] canvas >> nth=1")
    page.click("#draw-differ")
    assert pixels(page, "[data-column='2'] canvas >> nth=1") != before
    page.fill("#seed-2", "-5")
    page.press("#seed-2", "Tab")
    expect(page.locator("#seed-2")).to_have_value("0")  # inside the bounds again
    page.click("text=×")
    page.select_option("#sampler-1", "ddpm")
    page.fill("#steps-1", "1000")
    page.click("#draw-run")
    expect(page.locator("#draw-place")).to_contain_text("of 2")
    page.click("#draw-stop")
    expect(holder).to_have_attribute("data-state", "done")


def test_a_tab_closed_in_mid_sampling_leaves_the_server_to_others(page, browser, address):
    other = browser.new_page()
    other.goto(address)
    other.fill("#steps-1", "1000")
    other.click("#draw-run")
    other.locator("#draw-place:has-text('step')").wait_for()
    other.close()
    page.fill("#steps-1", "2")
    page.click("#draw-run")
    expect(page.locator("#draw-place")).to_have_text("step 2 of 2")


def scribble(page, points):
    box = page.locator("#edit-pad").bounding_box()
    for index, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def test_edit(page):
    state = page.locator("#edit-box")
    page.keyboard.press("2")  # tabs have numbers
    expect(page.get_by_role("tab", name="Edit")).to_have_attribute("aria-selected", "true")
    page.fill("#edit-steps", "25" if PICTURES else "6")
    empty = pixels(page, "#edit-pad")
    scribble(page, [(0.3, 0.25), (0.65, 0.25), (0.45, 0.48), (0.65, 0.65), (0.3, 0.8)])
    drawn = pixels(page, "#edit-pad")
    assert drawn != empty
    page.fill("#edit-level", "500")
    expect(page.locator("#edit-colour")).to_be_hidden()  # digits are grey
    finished = []
    for selector, value in ((None, ""), ("#edit-seed", "5"), ("#edit-guidance", "4"), ("#edit-sampler", "ddpm")):
        if selector == "#edit-sampler":
            page.select_option(selector, value)
        elif selector:
            page.fill(selector, value)
        page.click("#edit-finish")
        expect(state).to_have_attribute("data-state", "done")
        expect(page.locator("figcaption:has-text('finished by SDEdit')")).to_have_text("6 pictures, finished by SDEdit")
        finished.append(pixels(page, "#edit-result"))
    assert len(set(finished)) == 4  # each of them changes something
    page.click("#edit-fill")
    expect(page.locator("#status")).to_contain_text("there is no hole")
    page.click("#edit-rubber")
    scribble(page, [(0.3, 0.75), (0.7, 0.65)])
    assert pixels(page, "#edit-pad") != drawn
    press(page, "#edit-class [data-label='8']", "#edit-class [data-label='3']", "#edit-fill")
    expect(state).to_have_attribute("data-state", "done")
    expect(page.locator("#edit-box figcaption")).to_have_text("6 pictures, filled by RePaint")
    page.select_option("#edit-second", "5")
    morphs = []
    for first, seed in (("3", "1"), ("1", "1"), ("1", "7")):
        page.select_option("#edit-first", first)
        page.fill("#edit-other-seed", seed)
        page.click("#edit-morph")
        expect(state).to_have_attribute("data-state", "done")
        expect(page.locator(".morph figcaption")).to_have_text("9 pictures, from one to the other")
        morphs.append(pixels(page, "#edit-between"))
    assert len(set(morphs)) == 3
    seen(page, "edit")
    page.fill("#edit-steps", "250")
    page.click("#edit-finish")
    expect(page.locator("#edit-box figcaption")).to_contain_text("on the way")
    page.click("#edit-stop")
    expect(state).to_have_attribute("data-state", "done")
    expect(page.locator("#edit-box figcaption")).to_contain_text("on the way")
    press(page, "#edit-pen", "#edit-clear")
    assert pixels(page, "#edit-pad") == empty
    page.click("#edit-pick")
    page.wait_for_timeout(100)
    for _ in range(300):
        if pixels(page, "#edit-pad") != empty:
            break
        page.wait_for_timeout(100)
    assert pixels(page, "#edit-pad") != empty


def test_two_networks_of_colour_pictures(page, runs):
    save_two_networks(runs / "colours", channels=3)
    page.reload()
    page.get_by_role("option", name="colours (8x8, enlarged to 16x16)").wait_for(state="attached")
    page.select_option("#network", "colours")
    page.fill("#steps-1", "2")
    page.click("#draw-run")
    expect(page.locator("#draw-place")).to_have_text("step 4 of 4")
    page.fill("#draw-scrub", "500")
    expect(page.locator("[data-column='1'] .numbers")).to_contain_text("second network")
    page.click("#tab-edit")
    empty = pixels(page, "#edit-pad")
    page.fill("#edit-colour", "#00c000")
    scribble(page, [(0.5, 0.5), (0.6, 0.5)])
    colours = page.locator("#edit-pad").evaluate("canvas => [...canvas.getContext('2d').getImageData(4, 4, 1, 1).data]")
    assert pixels(page, "#edit-pad") != empty and colours[1] > 150 > 100 > max(colours[0], colours[2])
    page.fill("#edit-steps", "2")
    page.click("#edit-finish")
    expect(page.locator("#edit-box figcaption")).to_have_text("6 pictures, finished by SDEdit")


def test_look_inside(page):
    looked = page.locator("#inside[data-state='done']")
    page.get_by_role("tab", name="Draw").focus()
    press(page, "#tab-draw")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    looked.wait_for()
    expect(page.locator("svg.net path.skip")).to_have_count(6)
    bars = page.locator("svg.net").inner_html()
    page.select_option("#inside-measure", "backward")
    assert page.locator("svg.net").inner_html() != bars
    page.locator("[data-layer='down_blocks.1.resnets.0']").press("Enter")
    expect(page.locator("#inside-layer h2")).to_have_text("down_blocks.1.resnets.0 (ResnetBlock2D)")
    expect(page.locator("#inside-layer pre").nth(1)).to_contain_text("dtemb += self.time_emb_proj.backward(dt)")
    page.click("#inside-layer button:has-text('conv1')")
    expect(page.locator("#inside-layer h2")).to_have_text("down_blocks.1.resnets.0.conv1 (Conv2d)")
    page.click("[data-layer='mid_block.attentions.0']")
    before = pixels(page, "#inside-attention")
    page.fill("#inside-layer input[type=range]", "3")
    assert pixels(page, "#inside-attention") != before
    page.click("#theme")
    seen(page, "inside-dark")
    words = page.locator("#inside > .numbers").inner_text()
    page.fill("#inside-time", "800")
    page.click("#inside-digit [data-label='5']")
    expect(page.locator("#inside > .numbers")).not_to_have_text(words)
    looked.wait_for()
    words = page.locator("#inside > .numbers").inner_text().rpartition("loss")[2]
    page.fill("#inside-seed", "4")
    page.click("#inside-look")
    looked.wait_for()
    assert page.locator("#inside > .numbers").inner_text().rpartition("loss")[2] != words


def test_train(page, runs):
    words, run = page.locator("#train-words"), page.locator("#train-run")
    page.click("#tab-train")
    page.fill("#train-name", "a/b")
    page.click("#train-start")
    expect(page.locator("#status")).to_contain_text("name must be letters")
    page.fill("#train-name", "first")
    page.fill("#train-minutes", "30")
    page.fill("#train-batch", "8")
    page.select_option("#train-data", "digits")
    page.fill("#train-lr", "0.002")
    page.fill("#train-seed", "3")
    page.click("#train-start")
    expect(words).to_contain_text("first is running: step")
    expect(words).to_contain_text("of at most 0.002")
    assert json.loads((runs / "first" / "config.json").read_text())["seed"] == 3
    expect(page.locator("#train-charts svg")).to_have_count(3)
    expect(run).to_have_value("first")
    page.fill("#train-rate", "0.0005")
    page.click("#train-change")
    expect(words).to_contain_text("of at most 5.0e-4")
    page.click("#train-stop")
    expect(words).to_contain_text("first is stopped")
    expect(page.locator("#train-log")).to_contain_text("Stopped and saved after step")
    page.click("#train-resume")
    expect(words).to_contain_text("first is running")
    page.click("#train-stop")
    expect(words).to_contain_text("first is stopped")
    page.click("#tab-draw")
    page.select_option("#network", "first")  # what was trained can be drawn with
    page.fill("#steps-1", "2")
    page.click("#draw-run")
    expect(page.locator("#draw-place")).to_have_text("step 2 of 2")


def test_a_run_that_was_started_elsewhere_is_followed(page, runs):
    (runs / "other").mkdir(parents=True)
    quarters = (1.0, 0.5, 0.3, 0.1)
    rows = [{"step": n, "loss": 1 / n, "lr": 1e-3, "grad_norm": 2 / n, "loss_by_quarter": [quarter / n for quarter in quarters]}
            for n in range(1, 900)]  # fmt: skip
    (runs / "other" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(Path(__file__).parents[2] / "docs" / "samples.png", runs / "other" / "samples-800.png")
    page.click("#tab-train")
    page.select_option("#train-run", "other")
    expect(page.locator("#train-words")).to_contain_text("other is stopped: step 899")
    expect(page.locator("#train-stop")).to_be_disabled()
    assert page.locator("img.samples").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    with open(runs / "other" / "metrics.jsonl", "a") as file:
        file.write(json.dumps(rows[-1] | {"step": 900}) + "\n")
    expect(page.locator("#train-words")).to_contain_text("step 900")


def test_break(page):
    page.click("#tab-break")
    page.fill("#break-steps", "200" if PICTURES else "6")
    page.select_option("#break-defect", "assign")
    page.select_option("#break-layer", "mid_block.resnets.1")
    page.click("#break-run")
    expect(page.locator("#break-report")).to_contain_text("+= instead of =")
    page.locator("#break-box[data-state='done']").wait_for()
    curves = page.locator("#break-curves").inner_html()
    page.fill("#break-seed", "1")
    page.fill("#break-lr", "0.01")
    page.select_option("#break-defect", "sign")
    page.click("#break-run")
    expect(page.locator("#break-report tr.bad")).to_have_count(1)
    page.locator("#break-box[data-state='done']").wait_for()
    assert page.locator("#break-curves").inner_html() != curves
    seen(page, "break")
    page.fill("#break-steps", "2000")
    page.click("#break-run")
    expect(page.locator("#break-curves figcaption")).to_contain_text("of 2000")
    page.click("#break-stop")
    page.locator("#break-box[data-state='done']").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser, address, scheme):
    """Nothing is wider than the screen, and the theme is the system's."""
    phone = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme, has_touch=True).new_page()
    phone.goto(address)
    phone.fill("#steps-1", "6")
    phone.click("#draw-run")
    phone.locator("#draw [data-state='done']").wait_for(timeout=WAIT)
    assert phone.evaluate("document.documentElement.dataset.theme") == scheme
    for tab in ("draw", "edit", "inside", "train", "break"):
        phone.click(f"#tab-{tab}")
        if tab == "inside":
            phone.locator("svg.net").wait_for(timeout=WAIT)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390, tab
    phone.click("#tab-draw")
    seen(phone, f"phone-{scheme}")
    phone.context.close()


def test_every_control_is_used_here(page):
    """An id of the page that this file does not name is a control that nobody has tried."""
    page.locator("#break-run").wait_for(state="attached")
    controls = page.locator("button:not([role=tab]), input, select").evaluate_all("found => found.map(({ id }) => id)")
    columns = {f"{name}-1" for name in ("sampler", "steps", "guidance", "seed")}
    tried = Path(__file__).read_text(encoding="utf-8")
    assert columns < set(controls)
    assert not [name for name in controls if name and f"#{name}" not in tried and f"#{name[:-1]}2" not in tried]
