"""Google Drive: the address that gives a file itself, and the page that large files put before it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Optional
from urllib.parse import urlencode, urljoin, urlsplit

__all__ = ["confirmed_address", "direct_address", "is_refusal"]

_FILE = re.compile(r"https://drive\.google\.com/file/d/([\w-]+)")
_HOSTS = ("drive.google.com", "drive.usercontent.google.com", "docs.google.com", "localhost", "127.0.0.1")


def direct_address(address: str) -> str:
    """Return where the bytes of a shared file are; any other address as it is.

    Example:
        >>> direct_address("https://drive.google.com/file/d/1Fr2/view")
        'https://drive.usercontent.google.com/download?id=1Fr2&export=download&confirm=t'
    """
    found = _FILE.match(address)
    if not found:
        return address
    query = urlencode({"id": found.group(1), "export": "download", "confirm": "t"})
    return f"https://drive.usercontent.google.com/download?{query}"


def confirmed_address(page: str, address: str) -> Optional[str]:
    """Return where the page that asks for a confirmation leads, or None where it is no such page.

    Args:
        page: The HTML.
        address: Where it came from.
    """
    if urlsplit(address).hostname not in _HOSTS:
        return None
    form = _Form()
    form.feed(page)
    if form.action and "confirm" in form.fields:
        return f"{urljoin(address, form.action.split('?')[0])}?{urlencode(form.fields)}"
    if form.link:  # as the page was until 2022
        return urljoin(address, form.link)
    return None


def is_refusal(page: str) -> bool:
    """Whether the page says that too many people fetched the file."""
    return "quota" in page.lower()


class _Form(HTMLParser):
    """The first form with its hidden fields, and the first link with a confirmation in it."""

    def __init__(self) -> None:
        super().__init__()
        self.action, self.link = "", ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if tag == "form" and not self.action:
            self.action = given.get("action", "")
        elif tag == "input" and given.get("type") == "hidden" and "name" in given:
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "a" and "confirm=" in given.get("href", "") and not self.link:
            self.link = given["href"]
