"""What setuptools makes of the package's description."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_licence_is_an_spdx_expression_as_setuptools_wants_it_from_2027_on() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = described["project"]
    assert isinstance(project["license"], str)
    assert [(ROOT / name).is_file() for name in project["license-files"]] == [True]
    assert not [name for name in project["classifiers"] if name.startswith("License ::")]
    needed = next(r for r in described["build-system"]["requires"] if r.startswith("setuptools"))
    assert int(needed.partition(">=")[2]) >= 77  # older ones do not know such licences
