"""A PMML file as elements that know their line: no entities, nothing fetched, bounded in depth and number."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from penstock.schemas.errors import ConfigError

depth_max: Final = 2400
"""Elements inside each other: a tree of 1,024 tests takes one for each test."""
elements_max: Final = 1 << 22
"""About 2 GB of them in memory."""
_known_versions: Final = ("4.1", "4.2", "4.3", "4.4")
_whole_number: Final = re.compile(r"[+-]?\d{1,15}")
_number: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")


@dataclass(slots=True, eq=False)
class Element:
    """One element: its name without the namespace, and the line that it begins on."""

    name: str
    attributes: dict[str, str]
    line: int
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name} in line {self.line}"

    def all(self, *names: str) -> list["Element"]:
        """The children of these names."""
        return [child for child in self.children if child.name in names]

    def one(self, name: str) -> "Element | None":
        """The first child of this name."""
        return next((child for child in self.children if child.name == name), None)

    def need(self, name: str) -> "Element":
        """The first child of this name. Raises ConfigError where there is none."""
        found = self.one(name)
        if found is None:
            raise self.refused(f"has no {name}")
        return found

    def get(self, name: str, default: str = "") -> str:
        """An attribute, or the default."""
        return self.attributes.get(name, default)

    def must(self, name: str) -> str:
        """An attribute. Raises ConfigError where there is none."""
        if name not in self.attributes:
            raise self.refused(f"has no {name}")
        return self.attributes[name]

    def number(self, name: str, default: float | None = None) -> float:
        """An attribute that is a finite number. Raises ConfigError; where it is left out and there is no default as well."""
        if default is not None and name not in self.attributes:
            return default
        value = as_number(self.must(name))
        if value is None:
            raise self.refused(f"has {name}={self.attributes[name][:40]!r}, which is no number")
        return value

    def whole(self, name: str) -> int:
        """An attribute that is a whole number. Raises ConfigError."""
        if not _whole_number.fullmatch(self.must(name).strip()):
            raise self.refused(f"has {name}={self.attributes[name][:40]!r}, which is no whole number")
        return int(self.attributes[name])

    def refused(self, why: str) -> ConfigError:
        """What is wrong with it, to be raised."""
        return ConfigError(f"{self} {why}")

    def walk(self) -> Iterator["Element"]:
        """It and everything inside it."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting += element.children


def as_number(text: str) -> float | None:
    """A finite number as XML Schema writes it; None for anything else."""
    text = text.strip()
    value = float(text) if _number.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def read_elements(data: bytes) -> Element:
    """The PMML element of a file, with what is inside it but for extensions. Raises ConfigError in one sentence."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    open_elements: list[Element] = []
    roots: list[Element] = []
    texts: list[list[str]] = []
    count = 0

    def fault(why: str) -> ConfigError:
        return ConfigError(f"line {parser.CurrentLineNumber}: {why}")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > elements_max:
            raise fault(f"more than {elements_max:,} elements")
        if len(open_elements) >= depth_max:
            raise fault(f"more than {depth_max} elements inside each other")
        plain = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        element = Element(name.rpartition(" ")[2], plain, parser.CurrentLineNumber)
        if open_elements:
            if element.name != "Extension":
                open_elements[-1].children.append(element)
        else:
            roots.append(element)
        open_elements.append(element)
        texts.append([])

    def end(_: str) -> None:
        open_elements.pop().text = "".join(texts.pop())

    def text(more: str) -> None:
        if texts and (texts[-1] or not more.isspace()):
            texts[-1].append(more)

    def doctype(*_: object) -> None:
        raise fault("a document type, which may hold entities: PMML has none, and none is read")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ConfigError(f"line {error.lineno}: not XML: {expat.ErrorString(error.code)}") from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        raise ConfigError(f"line {parser.CurrentLineNumber}: not XML that can be read: {error}") from error
    root = roots[0]
    if root.name != "PMML":
        raise ConfigError(f"not PMML: it begins with {root.name[:40]} in line {root.line}")
    if not root.must("version").startswith(_known_versions):
        raise root.refused(
            f"is of version {root.attributes['version'][:20]!r}; known are {', '.join(_known_versions)}"
        )
    return root
