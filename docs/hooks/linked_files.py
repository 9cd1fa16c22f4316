"""Links that leave the documentation lead to copies in the site: the source of a test, the JSON of a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

__all__ = ["on_files", "on_page_markdown"]

#: Where the copies lie in the site, below which they keep their path in the repository.
FOLDER = "source"

_LINK = re.compile(r"(?<=\]\()(?:\.\./)+(?P<path>[^)#\s]+)")
_COPIED = {".json", ".md", ".png", ".py", ".toml", ".txt", ".yml"}


def _root(config: Any) -> Path:
    return Path(config["docs_dir"]).parent


def on_files(files: Files, config: Any) -> Files:
    """Add every file that a page links to outside of docs/."""
    for page in list(files.documentation_pages()):
        for link in _LINK.finditer(page.content_string):
            target, name = _resolved(link, page.src_uri, config)
            if name is not None and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, content=target.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point these links at the copies; one without a target stays as it is, and a strict build refuses it."""

    def pointed(link: re.Match[str]) -> str:
        name = _resolved(link, page.file.src_uri, config)[1]
        depth = page.file.src_uri.count("/")
        return link.group() if name is None else "../" * depth + name

    return _LINK.sub(pointed, markdown)


def _resolved(link: re.Match[str], page: str, config: Any) -> tuple[Path, str | None]:
    """The file that a link means, and the name of its copy; None for a page of the site, or what is not there."""
    root = _root(config).resolve()
    target = (Path(config["docs_dir"]) / page).parent / link.group()
    target = target.resolve()
    inside = target.is_file() and target.is_relative_to(root) and not target.is_relative_to(config["docs_dir"])
    if not inside or target.suffix not in _COPIED:
        return target, None
    # a page would be rendered, and a script is not what a browser shows: both become plain text
    ending = ".txt" if target.suffix in {".md", ".py"} else ""
    return target, f"{FOLDER}/{target.relative_to(root).as_posix()}{ending}"
