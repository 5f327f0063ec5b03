"""
OpenPGP key files: their armour, their packets, the fingerprints of their keys. Without gpg.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from salt.exceptions import CommandExecutionError


def dearmoured(data: bytes) -> bytes:
    """
    The packets of an OpenPGP file.

    data
        its content, ASCII-armoured or not

    Returns the binary packets.

    Raises CommandExecutionError when its armour is malformed or damaged.
    """
    if b"-----BEGIN PGP" not in data:
        return data
    packets = b""
    blocks = re.findall(
        rb"^-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t\r]*\n(.*?)^-----END PGP PUBLIC KEY BLOCK-----",
        data,
        re.DOTALL | re.MULTILINE,
    )
    if not blocks or len(blocks) != data.count(b"-----BEGIN PGP"):
        raise CommandExecutionError("the key file is not made of whole public key blocks")
    for block in blocks:
        # RFC 9580, 6.2: armour headers, an empty line, base64, perhaps "=" and a checksum.
        text = re.sub(rb"[ \t\r]+$", b"", block, flags=re.MULTILINE)
        head, separator, body = text.partition(b"\n\n")
        if text.startswith(b"\n"):
            body = text
        elif not separator or not all(b": " in line for line in head.splitlines()):
            raise CommandExecutionError("the key file's armour is malformed")
        lines = body.split()
        checksum = lines.pop()[1:] if lines and lines[-1].startswith(b"=") else None
        try:
            packet = base64.b64decode(b"".join(lines), validate=True)
            stated = base64.b64decode(checksum, validate=True) if checksum else None
        except binascii.Error as error:
            raise CommandExecutionError(f"the key file's armour is malformed: {error}") from error
        if stated is not None and stated != crc24(packet).to_bytes(3, "big"):
            raise CommandExecutionError("the key file is damaged: its checksum does not fit")
        packets += packet
    return packets


def crc24(data: bytes) -> int:
    """The checksum of armoured OpenPGP data (RFC 9580, 6.1.1)."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc


def _header(data: bytes, position: int) -> tuple[int, int, int]:
    """The type of a packet, the size of its body and of its header (RFC 9580, 4.2)."""
    first = data[position]
    if not first & 0x80:
        raise CommandExecutionError("the key file is not OpenPGP data")
    rest = data[position + 1 : position + 6].ljust(5, b"\0")
    if not first & 0x40:
        octets = (1, 2, 4, 0)[first & 3]
        if not octets:
            raise CommandExecutionError("the key file holds a packet of unknown length")
        return (first >> 2) & 0x0F, int.from_bytes(rest[:octets], "big"), 1 + octets
    kind = first & 0x3F
    if rest[0] < 192:
        return kind, rest[0], 2
    if rest[0] < 224:
        return kind, ((rest[0] - 192) << 8) + rest[1] + 192, 3
    if rest[0] == 255:
        return kind, int.from_bytes(rest[1:5], "big"), 6
    raise CommandExecutionError("the key file holds a packet of partial length")


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The packets of a key file: type and body."""
    position = 0
    while position < len(data):
        kind, size, head = _header(data, position)
        body = data[position + head : position + head + size]
        if len(body) != size:
            raise CommandExecutionError("the key file is cut off")
        yield kind, body
        position += head + size


# Signatures, marker, trust, user ids, subkeys, user attributes, padding: what a certificate holds.
_OF_A_CERTIFICATE = {2, 10, 12, 13, 14, 17, 21}


def _fingerprint(body: bytes) -> str:
    """The fingerprint of a public key's packet."""
    version = body[0] if body else 0
    if version == 4:
        # RFC 9580, 5.5.4.2 (and RFC 4880, 12.2)
        data = b"\x99" + len(body).to_bytes(2, "big") + body
        return hashlib.sha1(data, usedforsecurity=False).hexdigest().upper()
    if version == 6:
        # RFC 9580, 5.5.4.3
        data = b"\x9b" + len(body).to_bytes(4, "big") + body
        return hashlib.sha256(data).hexdigest().upper()
    raise CommandExecutionError(f"the key file holds a key of version {version}")


def primary_keys(packets: bytes) -> list[str]:
    """
    The full fingerprints of the primary keys in a keyring.

    packets
        as :py:func:`dearmoured` returns them

    Returns a list of upper-case hexadecimal texts (40 digits; 64 for version 6).

    Raises CommandExecutionError when it is not made of whole public keys.
    """
    found = []
    for kind, body in _packets(packets):
        if kind == 6:
            found.append(_fingerprint(body))
        elif kind in (5, 7):
            raise CommandExecutionError("the key file holds a secret key")
        elif kind not in _OF_A_CERTIFICATE:
            raise CommandExecutionError(f"the key file holds an OpenPGP packet of type {kind}")
        elif not found and kind not in (10, 21):
            raise CommandExecutionError("the key file does not begin with a key")
    if not found:
        raise CommandExecutionError("the key file holds no key")
    return found


def weak(packets: bytes) -> list[str]:
    """
    The primary keys that apt refuses, or soon will: RSA below 2048 bits, DSA.

    packets
        as :py:func:`dearmoured` returns them

    Returns their fingerprints.
    """
    found = []
    for kind, body in _packets(packets):
        # RFC 9580, 5.5.2: version, time, algorithm (1 to 3: RSA; 17: DSA), the size of the modulus.
        if kind == 6 and body[:1] == b"\x04":
            bits = int.from_bytes(body[6:8], "big")
            if body[5] == 17 or (body[5] in (1, 2, 3) and bits < 2048):
                found.append(_fingerprint(body))
    return found
