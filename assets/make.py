"""The pictures of README and docs, from runs and an atlas: `python assets/make.py runs/demo runs/atlas`.

The figures need a Chromium or Chrome for kaleido; the card is a picture that the same browser takes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from dissect import Atlas, Run, top_cards, views

FOLDER = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(demo: Path, atlas: Path) -> None:
    score, random = (Run.load(demo / name) for name in ("score", "random"))
    score.figure(random).write_image(FOLDER / "dashboard.png", width=1280, height=580)
    Atlas.load(atlas).figure().write_image(FOLDER / "atlas.png", width=1200)
    views.importance(score.scores()["mlp"]).write_image(FOLDER / "importance.png", width=1000, height=560)
    picture_of(top_cards(score, 1)[0]._repr_html_(), FOLDER / "card.png")


def picture_of(html: str, path: Path) -> None:
    """A card as it stands in a notebook, twice as fine as on a screen."""
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800}, device_scale_factor=2)
        page.set_content(html)
        page.locator(".dissect-card").screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
