"""Writes the page."""

from tools.promises.page import PAGE, page
from tools.promises.table import promises

PAGE.parent.mkdir(exist_ok=True)
PAGE.write_text(page(promises()), encoding="utf-8")
