"""The README's pictures of the pages: report and demo of the last run, which must be synthetic.

make pictures
"""

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from lesions.common import layout
from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import load_params

DOCS = Path("docs")
PORT = 7861


def main() -> None:
    """Write docs/report.png and docs/demo.png."""
    if load_params().source != "sample":
        raise LesionsError(f"{layout.PARAMS}: source must be sample: photos stay out of docs/.")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise LesionsError("Chromium is not installed: apt-get install chromium")
    subprocess.run([sys.executable, "-m", "lesions.commands", "report"], check=True)
    command = [sys.executable, "-m", "lesions.commands", "demo", "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto((layout.PAGES / "report.html").resolve().as_uri())
            page.screenshot(path=DOCS / "report.png")
            assert server.stdout
            server.stdout.readline()  # its address, once it listens
            page.goto(f"http://127.0.0.1:{PORT}")
            page.locator(".examples button").nth(4).click()
            page.locator("article .answer").first.wait_for()
            page.wait_for_timeout(1000)  # until it has scrolled
            page.screenshot(path=DOCS / "demo.png")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    run_cli(main)
