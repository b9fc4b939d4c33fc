"""A page as people see it: Chromium runs its scripts, and says what is shown."""

from __future__ import annotations

import html
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "chromium"


@dataclass(frozen=True)
class Shown:
    """The text of a page, its words one space apart, and what its scripts and the browser said in the console."""

    text: str
    console: list[str]


def open_page(url: str, profile: Path, *, dark: bool = False) -> Shown:
    """Open a page; ``profile`` is a folder for the browser's own files."""
    theme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         f"--user-data-dir={profile}", "--window-size=1400,1800", "--virtual-time-budget=15000", "--dump-dom",
         *theme, url],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    body = re.sub(r"<(script|style)\b.*?</\1>", "", done.stdout, flags=re.DOTALL)
    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
    return Shown(text, re.findall(r"CONSOLE.*", done.stderr))
