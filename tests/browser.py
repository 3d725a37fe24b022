"""Headless Chromium for tests: a page as a person would see it, after its scripts have run."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium(width: int = 1400, height: int = 1000) -> Iterator[Any]:
    """A selenium driver; gone afterwards. Skipped where there is no browser, but a failure where $CI is set."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        absent = "no chromium with chromedriver (Debian's packages chromium and chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    from selenium import webdriver

    with tempfile.TemporaryDirectory(prefix="harness-chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={profile}"]
        for flag in [*flags, f"--window-size={width},{height}"]:
            options.add_argument(flag)
        page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            page.set_page_load_timeout(60)
            yield page
        finally:
            page.quit()


def wait_for_text(page: Any, *texts: str, seconds: float = 60) -> str:
    """The page's visible text, once all these texts are in it; fails with what is there instead."""
    from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def visible(_: Any) -> str:
        found = str(page.find_element(By.TAG_NAME, "body").text)
        return found if all(text in found for text in texts) else ""

    try:
        return str(WebDriverWait(page, seconds, ignored_exceptions=[StaleElementReferenceException]).until(visible))
    except TimeoutException:
        shown = page.find_element(By.TAG_NAME, "body").text
        pytest.fail(f"{page.current_url}: not all of {texts} within {seconds} s; the page shows:\n{shown[:2000]}")
