"""What MkDocs makes of the repository beside the files of docs/: the start page, and the API."""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "balrogutils"
FLOOR = "floor"
# What a page would load from elsewhere when it is opened.
_REMOTE = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


def api():
    """Return the modules of every page of the API: a page a package, and one of the modules in none."""
    pages = {FLOOR: sorted(PACKAGE.glob("*.py"))}
    pages |= {package.parent.name: sorted(package.parent.glob("*.py")) for package in PACKAGE.glob("*/__init__.py")}
    return {name: [file.stem for file in files if file.stem != "__init__"] for name, files in sorted(pages.items())}


def on_config(config):
    """Put the pages of the API behind the documents."""
    config.nav.append({"API": [{name: f"api/{name}.md"} for name in api()]})
    return config


def on_files(files, config):
    """Write the start page from README.md, and the pages of the API."""
    start = re.sub(r"\]\(docs/", "](", (CHECKOUT / "README.md").read_text())
    files.append(File.generated(config, "index.md", content=start))
    for name, modules in api().items():
        package = "balrogutils" if name == FLOOR else f"balrogutils.{name}"
        text = [f"# {package}", *(f"::: {package}.{module}" for module in modules)]
        files.append(File.generated(config, f"api/{name}.md", content="\n\n".join(text) + "\n"))
    return files


def on_post_page(output, page, config):
    """Refuse a page that loads anything from elsewhere."""
    if remote := _REMOTE.search(output):
        raise PluginError(f"{page.file.src_uri} needs the network: {remote[0]}")
    return output
