"""A page as people see it: Chromium runs its scripts, and says what is shown."""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path

PROGRAM = "chromium"


def text_of(url: str, profile: Path) -> str:
    """Return the text of a page, its words one space apart; ``profile`` is a folder for the browser's own files."""
    done = subprocess.run(
        [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={profile}", "--window-size=1400,1800", "--virtual-time-budget=15000", "--dump-dom", url],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    body = re.sub(r"<(script|style)\b.*?</\1>", "", done.stdout, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
