"""What `make docs` does besides what mkdocs does: pages from the root, and links out of docs/."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent

# Those that stand in the root because people look for them there.
FROM_ROOT = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root."""
    for source, page in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links as they are in the checkout into the site's; a file that is no page is text."""
    return re.sub(r"\[([^]]*)\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)", _link, markdown)


def _link(found: re.Match[str]) -> str:
    text, path, anchor = found.groups("")
    path = path.removeprefix("../").removeprefix("docs/")
    path = FROM_ROOT.get(path, path)
    is_page = path in FROM_ROOT.values() or (ROOT / "docs" / path).exists()
    return f"[{text}]({path}{anchor})" if is_page else str(text)
