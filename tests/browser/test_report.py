"""The report in a real browser: nothing breaks, nothing leaves the page, what should move moves."""

import json
import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from warpwise.cli import execute
from warpwise.io.images import write_image
from warpwise.report import FIGURES, viewer
from warpwise.report import page as page_module
from warpwise.report.material import Material
from warpwise.synthetic.phantoms import brain_pair

FLAGS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
NASTY = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A registration of files whose names are hostile, with its report and figures."""
    folder = tmp_path_factory.mktemp("report")
    pair = brain_pair((48, 57, 45), seed=2)
    for name, image in (("f", pair.fixed), (NASTY, pair.moving), ("fl", pair.fixed_labels), ("ml", pair.moving_labels)):
        write_image(folder / f"{name.replace('/', '')}.nii.gz", image)
    code = execute(
        [
            "register", str(folder / "f.nii.gz"), str(folder / f"{NASTY}.nii.gz"), "-o", str(folder / "out"),
            "--report", "--figures", "--fixed-labels", str(folder / "fl.nii.gz"),
            "--moving-labels", str(folder / "ml.nii.gz"), "--quiet",
        ]
    )  # fmt: skip
    assert code == 0
    return folder / "out"


@pytest.fixture(scope="module")
def browsers() -> Iterator[dict[str, Browser]]:
    """Chromium with WebGL in software, and one without WebGL."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine; install Debian's package chromium")
    with sync_playwright() as driver:
        yield {
            name: driver.chromium.launch(executable_path=program, args=[*FLAGS, *extra])
            for name, extra in (("webgl", []), ("plain", ["--disable-3d-apis"]))
        }


class Watched:
    """A page, and everything it complained about or asked for."""

    def __init__(self, browser: Browser, path: Path) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1200, "height": 900})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("dialog", lambda d: self.complaints.append(f"dialog {d.message}"))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())

    def ready(self) -> str:
        self.page.wait_for_selector("#canvas[data-state]", state="attached", timeout=60_000)
        return self.page.get_attribute("#canvas", "data-state") or ""

    def picture(self, selector: str) -> np.ndarray:
        return mpimg.imread(BytesIO(self.page.locator(selector).screenshot()), format="png")[..., :3]


def test_the_page_is_quiet_and_asks_for_nothing(run: Path, browsers):
    seen = Watched(browsers["webgl"], run / "report.html")
    assert seen.ready() == "ready"
    seen.page.wait_for_timeout(500)
    assert not [c for c in seen.complaints if "GPU stall" not in c], seen.complaints
    outside = [url for url in seen.requests if not url.startswith(("file://", "blob:", "data:"))]
    assert not outside
    assert len([url for url in seen.requests if url.startswith("file://")]) == 1


def test_the_viewer_shows_the_volumes_and_its_slider_changes_them(run: Path, browsers):
    seen = Watched(browsers["webgl"], run / "report.html")
    assert seen.ready() == "ready"
    seen.page.wait_for_timeout(1000)
    half = seen.picture("#canvas canvas")
    assert float((half.max(-1) > 0.2).mean()) > 0.02
    assert len(np.unique(np.rint(half.reshape(-1, 3) * 255), axis=0)) > 50
    seen.page.select_option("#above", label="log Jacobian")
    seen.page.wait_for_timeout(1000)
    coloured = seen.picture("#canvas canvas")
    assert float(np.abs(coloured - half).mean()) > 0.005
    seen.page.locator("#opacity").evaluate("e => { e.value = 0; e.dispatchEvent(new Event('input')); }")
    seen.page.wait_for_timeout(1000)
    clear = seen.picture("#canvas canvas")
    assert float(np.abs(clear - coloured).mean()) > 0.005


def test_the_images_flicker_until_they_are_stopped(run: Path, browsers):
    seen = Watched(browsers["webgl"], run / "report.html")
    said = set()
    for _ in range(12):
        said.add(seen.page.inner_text("#shown"))
        seen.page.wait_for_timeout(200)
    assert said == {"fixed", "warped"}
    seen.page.check("input[name=other][value='after affine']")
    seen.page.click("#play")
    seen.page.locator("#mix").evaluate("e => { e.value = 100; e.dispatchEvent(new Event('input')); }")
    assert seen.page.inner_text("#shown") == "after affine"
    shown = seen.picture(".plane >> nth=0")
    seen.page.wait_for_timeout(900)
    assert np.array_equal(shown, seen.picture(".plane >> nth=0"))
    seen.page.locator("#mix").evaluate("e => { e.value = 0; e.dispatchEvent(new Event('input')); }")
    assert float(np.abs(shown - seen.picture(".plane >> nth=0")).mean()) > 0.005


def test_names_are_text_and_nothing_else(run: Path, browsers):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert NASTY not in text
    assert "<img src=x" not in text
    seen = Watched(browsers["webgl"], run / "report.html")
    assert NASTY in seen.page.inner_text("h1")
    assert seen.page.locator("img[src='x']").count() == 0
    assert not [c for c in seen.complaints if "dialog" in c]


def test_without_webgl_the_figures_remain(run: Path, browsers):
    seen = Watched(browsers["plain"], run / "report.html")
    assert seen.ready() == "fallback"
    assert "no WebGL 2" in seen.page.inner_text("#fallback")
    assert seen.page.locator(".figure img").count() == 8
    broken = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
    assert seen.page.locator("body").evaluate(f"() => {broken}") == 0


def test_without_niivue_the_page_says_how_to_get_it(run: Path, monkeypatch):
    monkeypatch.setattr(page_module, "bundle", lambda: None)
    text = page_module.page(Material.of_folder(run))
    assert "Install ipyniivue" in text
    assert 'id="canvas"' not in text
    assert len(text) < 3_000_000


def test_the_bundle_is_the_installed_one():
    assert viewer.bundle() is not None
    tracked = Path(viewer.__file__).parent
    assert not [p for p in tracked.rglob("*") if p.is_file() and "niivue" in p.name.lower()]


def test_figures_are_written_as_png_and_svg(run: Path):
    names = {p.name for p in (run / "figures").iterdir()}
    shown = set(FIGURES) - {"landmarks", "uncertainty"}  # none were given; no network was used
    assert names == {f"{name}.{kind}" for name in shown for kind in ("png", "svg")}
    for name in shown:
        assert mpimg.imread(run / "figures" / f"{name}.png").std() > 0.02
        assert (run / "figures" / f"{name}.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_a_report_is_written_again_from_its_folder(run: Path, tmp_path: Path, capfd):
    assert execute(["report", str(run), "-o", str(tmp_path / "again.html")]) == 0
    once, again = ((p).read_text(encoding="utf-8") for p in (run / "report.html", tmp_path / "again.html"))
    strip = re.compile(r"data:[^\"]+|<script.*?</script>|<td>[^<]*</td>", re.DOTALL)
    way = re.compile(r"<section class=\"figure\"><h2>On the way</h2>.*?</section>\n", re.DOTALL)
    assert way.search(once)
    once = way.sub("", once)  # a folder does not hold what was known on the way
    assert strip.sub("", once) == strip.sub("", again)
    assert execute(["report", str(run)]) == 2
    assert "--overwrite" in capfd.readouterr().err
    assert execute(["report", str(tmp_path)]) == 2
    assert "no result.json" in capfd.readouterr().err
    (tmp_path / "result.json").write_text("{}")
    assert execute(["report", str(tmp_path)]) == 2
    assert "not a result" in capfd.readouterr().err


def test_a_plane_and_a_lost_moving_image_are_reported_too(tmp_path: Path):
    import nibabel as nib

    data = np.asarray(brain_pair((48, 57, 45), seed=2).fixed.data[0])[:, :, 22]
    for name, image in (("a", data), ("b", np.roll(data, 2, 0))):
        nib.Nifti1Image(image, np.diag([3.0, 3, 1, 1])).to_filename(tmp_path / f"{name}.nii.gz")
    out = tmp_path / "out"
    assert execute(["register", str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz"), "-o", str(out), "--report"]) == 0
    assert "A plane: the figures show all of it" in (out / "report.html").read_text(encoding="utf-8")
    (tmp_path / "b.nii.gz").unlink()
    assert execute(["report", str(out), "--overwrite"]) == 0
    assert "b.nii.gz is not there any more" in (out / "report.html").read_text(encoding="utf-8")
    assert json.loads((out / "result.json").read_text())["timings_s"]["report"] > 0
