"""The picture of the page in the documentation: python -m benchmarks.page_picture [OUT.jpg]

Run it on a quiet machine: the page shows how long the match took. It needs the extra `web`, playwright and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.page_load import served

OUT = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "page.jpg"
PATIENCE = 600_000  # milliseconds


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    from playwright.sync_api import sync_playwright

    with served("--workers", "1", "--seconds", "600") as (url, _), sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        match_first_example(page)
        match_first_example(page)  # the first match of a process is slower
        page.screenshot(path=out, full_page=True, type="jpeg", quality=80)
        browser.close()


def chromium() -> str:
    """A Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SystemExit(f"none of {', '.join(names)} is installed")
    return found


def match_first_example(page: Any) -> None:
    """Until its answer stands there."""
    page.click("#example1")
    page.wait_for_selector("#photograph2 img[src*='file=']")
    page.evaluate("document.querySelector('lisrd-matches')?.remove()")
    page.click("#match")
    page.wait_for_selector("lisrd-matches canvas, .lisrd-error")
    errors = page.locator(".lisrd-error").all_inner_texts()
    if errors:
        raise SystemExit(errors[0])


if __name__ == "__main__":
    main()
