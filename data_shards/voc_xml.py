"""VOC's annotations: the classes of the objects in an XML file."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from amn_dist.errors import PLACE, ShardError, printable


def read_labels(content: bytes, name: str, *, difficult: bool = True) -> tuple[str, ...]:
    """Class names of the objects in a VOC annotation; difficult=False: of difficult ones only where there are no others
    (icd 1.2). Raises ShardError naming file and line.

    Files with a document type or entities are refused before anything in them is expanded or opened.
    """
    try:
        tree = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise ShardError(
            f"{printable(name, PLACE)}: declares a DTD or entities, which are refused; remove the DOCTYPE"
        ) from error
    except ParseError as error:
        fault = str(error).partition(":")[0]
        raise ShardError(
            f"{printable(name, PLACE)}: line {error.position[0]}: {printable(fault)}; expected well-formed XML"
        ) from error
    except (ValueError, LookupError) as error:
        raise ShardError(f"{printable(name, PLACE)}: cannot be read as XML ({printable(error)})") from error
    if tree.tag != "annotation":
        raise ShardError(f"{printable(name, PLACE)}: found <{printable(tree.tag)}>, expected <annotation>")
    labels = list(_labels(tree, name))
    easy = [label for label, marked in labels if not marked]
    return tuple(easy if easy and not difficult else [label for label, _ in labels])


def _labels(tree: Element, name: str) -> Iterator[tuple[str, bool]]:
    """Name of every object, and whether it is marked as difficult."""
    for number, element in enumerate(tree.findall("object"), 1):
        where = f"{name}: object {number}"
        label, marked = _only(element, "name", where), _only(element, "difficult", where) or "0"
        if not label:
            raise ShardError(f"{where} has no name")
        if marked not in ("0", "1"):
            raise ShardError(f"{where}: difficult: found '{printable(marked, 80)}', expected 0 or 1")
        yield label, marked == "1"


def _only(parent: Element, tag: str, where: str) -> str:
    """The text of an element that there is once at most."""
    elements = parent.findall(tag)
    if len(elements) > 1:
        raise ShardError(f"{where} has {len(elements)} elements <{tag}>, expected one")
    return (elements[0].text or "").strip() if elements else ""
