"""No secret is in the repository: what `detect-secrets` takes for one is known, and made up."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings

ROOT = Path(__file__).parents[2]
KNOWN = ROOT / ".ci/made-up-secrets.json"
"""By file, hashes of what looks like a secret and is none; running this module writes it."""


def found_in(root: Path, names: list[str]) -> dict[str, list[str]]:
    """Return the hashes of all that looks like a secret, by the file's name."""
    found: dict[str, list[str]] = {}
    with default_settings():
        for name in names:
            secrets = SecretsCollection(root=str(root))
            secrets.scan_file(name)
            hashes = sorted({secret.secret_hash for _, secret in secrets})
            if hashes:
                found[name] = hashes
    return found


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file() and ROOT / name != KNOWN]


def test_what_looks_like_a_secret_is_known() -> None:
    known = json.loads(KNOWN.read_text())
    for name, hashes in found_in(ROOT, tracked_files()).items():
        assert set(hashes) <= set(known.get(name, [])), f"{name}: take it out, or if it is made up: see {KNOWN.name}"


@pytest.mark.parametrize(
    "planted",
    [
        "aws_key = 'AKIA" + "QWERTYUIOPASDFGH'",
        "-----BEGIN " + "RSA PRIVATE KEY-----",
        "STRINGEEX_PASSWORD='hunter2" + "hunter2'",
    ],
)
def test_a_secret_would_be_found(planted: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(planted + "\n")
    assert found_in(tmp_path, ["settings.py"]).keys() == {"settings.py"}


if __name__ == "__main__":
    KNOWN.write_text(json.dumps(found_in(ROOT, tracked_files()), indent=1) + "\n")
