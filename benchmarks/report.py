"""The report of 1000←1001: size, time to write, time until a browser shows it; and the screenshot in docs/.

    python benchmarks/report.py [--data FOLDER]

The screenshot shows the synthetic pair of `warpwise demo`, because no scan may be published here.
Results: benchmarks/results/report.json and docs/report.png.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine
from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
ROOT = Path(__file__).resolve().parents[1]


def opened(path: Path, picture: Path | None = None) -> dict:
    complaints, requests = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900}, device_scale_factor=1)
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("request", lambda r: requests.append(r.url))
        began = time.perf_counter()
        page.goto(path.as_uri())
        loaded = time.perf_counter() - began
        page.wait_for_selector("#canvas[data-state]", state="attached", timeout=120_000)
        shown = time.perf_counter() - began
        if picture is not None:
            page.wait_for_timeout(1500)
            page.screenshot(path=str(picture), clip={"x": 0, "y": 0, "width": 1200, "height": 1660}, full_page=True)
        state = page.get_attribute("#canvas", "data-state")
        browser.close()
    outside = [r for r in requests if not r.startswith(("file:", "blob:", "data:"))]
    return {
        "loaded_s": round(loaded, 2),
        "viewer_s": round(shown, 2),
        "viewer": state,
        "errors": complaints,
        "requests": outside,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    folder = options.data / "oasis-mals"
    program = Path(sys.executable).parent / "warpwise"
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        arguments = [
            folder / "images" / "1000.nii.gz",
            folder / "images" / "1001.nii.gz",
            "-o",
            out,
            "--report",
            "--overwrite",
        ]
        labels = ["--fixed-labels", folder / "labels" / "1000.nii.gz", "--moving-labels", folder / "labels" / "1001.nii.gz"]
        seconds = []
        for _ in range(3):
            subprocess.run([program, "register", *arguments, *labels, "--label-weight", "0", "--quiet"], check=True)
            seconds.append(json.loads((out / "result.json").read_text())["timings_s"]["report"])
        result = {
            **machine(),
            "megabytes": round((out / "report.html").stat().st_size / 1e6, 1),
            "seconds_after_registration": statistics.median(seconds),
            "browser": opened(out / "report.html"),
        }
        demo = Path(scratch) / "demo"
        subprocess.run([program, "demo", "-o", demo], check=True, capture_output=True)
        subprocess.run([program, "report", demo], check=True)
        opened(demo / "report.html", ROOT / "docs" / "report.png")
    print(json.dumps(result, indent=1))
    (ROOT / "benchmarks" / "results" / "report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
