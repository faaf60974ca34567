"""Single Avro values, for the few that are not written from columns."""


def avro_long(value: int) -> bytes:
    """An int or long: zigzag, seven bits a byte."""
    bits, out = (value << 1) ^ (value >> 63), bytearray()
    while bits >= 0x80:
        out.append(bits & 0x7F | 0x80)
        bits >>= 7
    out.append(bits)
    return bytes(out)


def avro_text(text: str) -> bytes:
    """A string: its length and its UTF-8."""
    data = text.encode(errors="replace")
    return avro_long(len(data)) + data
