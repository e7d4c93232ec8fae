"""What pyproject.toml cannot say: the metadata that depends on where the project can be found."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

SETTINGS = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8"))
ADDRESS = SETTINGS["tool"]["hsmagent"]["places"]
FILES = {"Source": "", "Changelog": "CHANGELOG.md", "Security": "SECURITY.md"}


def description() -> str:
    """Return README.md with links that work on an index's page, where the files are not beside it.

    Without an address, a link is its text alone, and a picture what stands for it.
    """
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    if ADDRESS:
        text = re.sub(r"(\]\()(?!\w+:|#)", rf"\1{ADDRESS}", text)
        return re.sub(r'(<img src=")(?!\w+:)', rf"\1{ADDRESS.replace('/blob/', '/raw/')}", text)
    text = re.sub(r"\[([^]]+)\]\((?!\w+:|#)[^)]+\)", r"\1", text)
    return re.sub(r'<img src="(?!\w+:)[^>]*alt="([^"]*)"[^>]*>', r"\1", text)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    project_urls={name: f"{ADDRESS}{file}" for name, file in FILES.items()} if ADDRESS else {},
)
