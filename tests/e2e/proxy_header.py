"""Reads PROXY protocol headers, as an app does whose port record asks for them."""
import ipaddress
import struct
from dataclasses import dataclass, field

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ALPN, AUTHORITY, SSL, SSL_VERSION, SSL_CIPHER = 0x01, 0x02, 0x20, 0x21, 0x23


@dataclass
class Header:
    version: int
    command: str                                # PROXY, LOCAL or UNKNOWN
    source: tuple = None
    destination: tuple = None
    tlvs: dict = field(default_factory=dict)    # type: value
    tls: dict = field(default_factory=dict)     # of the SSL TLV: type: value


def read_tlvs(data):
    tlvs = {}
    while data:
        kind, length = struct.unpack_from("!BH", data)
        tlvs[kind], data = data[3:3 + length], data[3 + length:]
    return tlvs


def read_v1(wire):
    line = wire.read_until(b"\r\n").decode("ascii").split(" ")
    assert line[0] == "PROXY" and line[1] in ("TCP4", "TCP6", "UNKNOWN"), line
    if line[1] == "UNKNOWN":
        return Header(1, "UNKNOWN")
    _, _, source, destination, source_port, destination_port = line
    return Header(1, "PROXY", (source, int(source_port)), (destination, int(destination_port)))


def read_v2(wire):
    assert wire.read(12) == SIGNATURE
    command, family, length = struct.unpack("!BBH", wire.read(4))
    block = wire.read(length)
    if command == 0x20:
        return Header(2, "LOCAL")
    assert command == 0x21 and family in (0x11, 0x21), (command, family)
    size = 4 if family == 0x11 else 16
    source, destination = (str(ipaddress.ip_address(block[at:at + size])) for at in (0, size))
    ports = struct.unpack_from("!HH", block, 2 * size)
    tlvs = read_tlvs(block[2 * size + 4:])
    tls = read_tlvs(tlvs[SSL][5:]) if SSL in tlvs else {}
    return Header(2, "PROXY", (source, ports[0]), (destination, ports[1]), tlvs, tls)


READERS = {"v1": read_v1, "v2": read_v2}
