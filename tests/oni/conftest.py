"""Fixtures of the tests that open the pages of a run in a real browser; what they are is said in `browsing`."""

from browsing import browser, open_page, served, trained

__all__ = ["browser", "open_page", "served", "trained"]
