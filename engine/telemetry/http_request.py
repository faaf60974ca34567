"""The head of an HTTP request, for the few routes that read more of it than the path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

query_fields_max = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A GET or HEAD, or where a server takes them a POST. Everything in it was chosen by the client."""

    path: str
    """With its escapes undone; what is not UTF-8 in it is replaced."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name; the last one of a name, and of several `host` none: a proxy may have gone by the other."""
    peer: str
    """The address it comes from."""
    method: str = "GET"
    every: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """All headers by lower-case name, those of one name in order."""
    body: bytes = field(default=b"", repr=False)


def read_request(head: bytes, peer: str) -> Request | None:
    """The request in a head whose first line has three words, and in what came behind it; None: it has more query fields than
    anybody needs."""
    first, _, body = head.partition(b"\r\n\r\n")
    lines = first.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    path, _, query = target.partition("?")
    try:
        fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=query_fields_max))
    except ValueError:
        return None
    every: dict[str, tuple[str, ...]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            word = name.strip().lower()
            every[word] = (*every.get(word, ()), value.strip())
    return Request(
        path=unquote(path, errors="replace"),
        query=fields,
        headers={
            name: "" if name == "host" and len(values) > 1 else values[-1] for name, values in every.items()
        },
        peer=peer,
        method=method,
        every=every,
        body=body,
    )


def body_length(head: bytes) -> int | None:
    """How many bytes follow the head of a POST; None where it does not say so in the one way that is taken here."""
    found = []
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        word = name.strip().lower()
        if colon and word == b"transfer-encoding":
            return None
        if colon and word == b"content-length":
            found.append(value.strip())
    if len(found) != 1 or not found[0].isdigit() or len(found[0]) > 9:
        return None
    return int(found[0])
