"""What pyproject.toml cannot say: the metadata that depends on where the project can be found."""

import re
from pathlib import Path

from setuptools import setup

# Where the project's files can be read, such as "https://host/project/blob/main/". There is no
# public place yet. This is the only constant that names it.
ADDRESS = ""


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
    project_urls={"Source": ADDRESS, "Changelog": f"{ADDRESS}CHANGELOG.md"} if ADDRESS else {},
)
