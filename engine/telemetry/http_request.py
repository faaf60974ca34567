"""The head of an HTTP request, for the few routes that read more of it than the path."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

query_fields_max = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A GET or HEAD. Everything in it was chosen by the client."""

    path: str
    """With its escapes undone; what is not UTF-8 in it is replaced."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name; the last one of a name, and of several `host` none: a proxy may have gone by the other."""
    peer: str
    """The address it comes from."""


def read_request(head: bytes, peer: str) -> Request | None:
    """The request in a head whose first line has three words; None: it has more query fields than anybody needs."""
    lines = head.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
    path, _, query = lines[0].split(" ")[1].partition("?")
    try:
        fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=query_fields_max))
    except ValueError:
        return None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            headers[key] = "" if key == "host" and key in headers else value.strip()
    return Request(path=unquote(path, errors="replace"), query=fields, headers=headers, peer=peer)
