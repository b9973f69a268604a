"""How quick the explorer is on the feed-forward units of SmolLM2-135M and of a 7B model, in Python and in a browser.

The statistics are random; no model is run. `python -m tests.benchmarks.explorer`
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from playwright.sync_api import Page, sync_playwright

from dissect.explorer.choice import Evidence
from dissect.explorer.explorer import Explorer
from dissect.explorer.material import Material
from dissect.explorer.served import Served
from dissect.scoring.moments import SUMS
from dissect.scoring.stats import Stats, UnitStats
from tests.support.browser import CHROMIUM

SHAPES = {"SmolLM2-135M": (30, 1_536), "a 7B model": (32, 14_336)}
# The time of each of forty steps of the slider, from the move until the next frame is drawn.
SLIDE = """async () => {
    const slider = document.querySelector("[data-control=fraction]");
    const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
    const times = [];
    for (let step = 0; step < 40; step++) {
        const begin = performance.now();
        slider.value = 5 + (step % 20);
        slider.dispatchEvent(new Event("input"));
        await frame();
        times.push((performance.now() - begin) / 1000);
    }
    return times;
}"""


def main() -> None:
    names = ("open, Python", "fraction, Python", "eps, Python", "open, page", "slider, page")
    print("| median seconds | units | " + " | ".join(names) + " |")
    print("| --- |" + " ---: |" * (len(names) + 1))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, shape in SHAPES.items():
            seconds = measured(material(shape), browser)
            print(f"| {name} | {shape[0] * shape[1]:,} | " + " | ".join(f"{each:.3g}" for each in seconds) + " |")
        browser.close()


def material(shape: tuple[int, int]) -> Material:
    """Random statistics, about as widely spread as those of a model."""
    generator = torch.Generator().manual_seed(0)
    shared = 1.2 * torch.randn(shape, generator=generator)
    sums = [torch.exp(shared + 0.5 * torch.randn(shape, generator=generator)).double() for _ in range(2)]
    evidence = Evidence(*(Stats({"mlp": UnitStats(100, dict.fromkeys(SUMS, each))}) for each in sums))
    return Material(evidence, {"forget": "forget", "retain": "retain"}, "", lacks="a benchmark has no model")


def measured(of: Material, browser: Any) -> list[float]:
    explorer = Explorer(of)
    opening = timed(lambda _: Explorer(Material(Evidence(of.evidence.forget, of.evidence.retain), of.names, "")), 3)
    moves = [timed(lambda k, control=control: step(control, k), 7) for control in (explorer.fraction, explorer.eps)]
    served = Served(explorer._desk)
    threading.Thread(target=served.work, daemon=True).start()
    page = browser.new_page(viewport={"width": 1280, "height": 1100})
    opened = timed(lambda _: show(page, served.address), 5)
    page.wait_for_timeout(1_000)
    slid = statistics.median(page.evaluate(SLIDE))
    page.close()
    served.close()
    return [opening, *moves, opened, slid]


def step(control: Any, number: int) -> None:
    control.index = number + 1


def show(page: Page, address: str) -> None:
    """Until the dots are drawn."""
    page.goto(address)
    page.wait_for_selector(".key li >> text=in view")


def timed(work: Callable[[int], Any], repeats: int) -> float:
    seconds = []
    for number in range(repeats):
        begin = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
