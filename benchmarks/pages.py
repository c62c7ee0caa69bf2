"""Which page is made of which record; `python -m benchmarks pages` writes them all."""

from __future__ import annotations

from benchmarks import flights, launch, loader, prepare_page, training
from benchmarks.results_file import Page

PAGES: dict[str, Page] = {
    "launch": launch.page,
    "training": training.page,
    **loader.PAGES,
    "prepare": prepare_page.page,
    "flights": flights.page,
}
