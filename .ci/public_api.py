"""Prints the public API as the pages of `cargo doc` have it.

    python3 .ci/public_api.py target/doc/clipwise > tests/public_api.txt

One paragraph per item: its paths, its declaration, the traits without parameters that it implements, and its methods and other
implementations, one per line. Automatic and blanket implementations are left out.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

KINDS = {"constant", "enum", "fn", "macro", "static", "struct", "trait", "type", "union"}
LEFT_OUT = ("blanket-", "deref-methods", "foreign-impls", "implementors", "synthetic-", "variant.")
VOID = {"br", "hr", "img", "input", "link", "meta", "wbr"}


class Page(HTMLParser):
    """The declaration of a page's item, and the headings of its methods and implementations."""

    def __init__(self, text):
        super().__init__()
        self.lines = []
        self.open = []  # elements: tag, id, whether its text is a line
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in VOID:
            return
        attributes = dict(attributes)
        classes = (attributes.get("class") or "").split()
        inside = lambda names: any(id.startswith(names) for _, id, _ in self.open)
        heading = "code-header" in classes and not inside(LEFT_OUT)
        method_of_trait = tag == "h4" and inside("trait-implementations-list")
        is_line = "item-decl" in classes or (heading and not method_of_trait)
        self.open.append((tag, attributes.get("id") or "", is_line))
        if is_line:
            self.lines.append("")

    def handle_endtag(self, tag):
        if tag == "div":  # of an attribute
            self.handle_data(" ")
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        inside = [place for place, (_, _, is_line) in enumerate(self.open) if is_line]
        if inside and all(tag != "summary" for tag, _, _ in self.open[inside[0] :]):  # "Show 17 variants"
            self.lines[-1] += data


def plain(line):
    line = " ".join(line.split())
    return line.replace("( ", "(").replace(", )", ")")


def item(name, page):
    """The lines of an item; none for a page that leads on to another."""
    lines = [plain(line) for line in Page(page.read_text()).lines]
    traits = sorted(found[1] for line in lines if (found := re.fullmatch(rf"impl (\w+) for {name}", line)))
    others = {line for line in lines[1:] if not re.fullmatch(rf"impl \w+ for {name}|impl {name}", line)}
    return lines[:1] + ([" + ".join(traits)] if traits else []) + sorted(others)


def main(folder):
    paths = {}
    for page in folder.rglob("*.html"):
        kind, _, name = page.stem.partition(".")
        if kind in KINDS and (lines := item(name, page)):
            path = "::".join([*page.relative_to(folder.parent).parts[:-1], name])
            paths.setdefault((name, *lines), []).append(path)
    by_length = lambda path: (path.count("::"), path)
    paragraphs = [[" = ".join(sorted(at, key=by_length)), *lines] for (_, *lines), at in paths.items()]
    print("\n\n".join("\n    ".join(paragraph) for paragraph in sorted(paragraphs)))


main(Path(sys.argv[1]))
