"""
Certificates and private keys as PEM texts, read without a process where that is possible.
"""

import calendar
import hashlib
import os
import re
import ssl
import subprocess
import time
from typing import Any

from salt.exceptions import CommandExecutionError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
_OPENSSL_TIMEOUT = 60


# --- reading certificates ----------------------------------------------------------------------
def contents(value: str) -> bytes | None:
    """A certificate or a key of the pillar: the text itself, or what is in the file."""
    if not value.startswith("/"):
        return value.encode()
    try:
        with open(value, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _encrypted() -> str:
    raise ValueError("a private key that is encrypted, and nobody is there to type its passphrase")


def mismatch_of_texts(certificate: bytes, key: bytes) -> str | None:
    """Why OpenSSL does not take the two for a pair; never a word of the key."""
    handles = []
    try:
        for contents in (certificate, key):
            # In memory: no key is written to a disk to be looked at.
            handle = os.memfd_create("site_certificate", os.MFD_CLOEXEC)
            handles.append(handle)
            os.write(handle, contents)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        paths = [f"/proc/self/fd/{handle}" for handle in handles]
        context.load_cert_chain(paths[0], paths[1], password=_encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "a key that is not the certificate's"
        return f"what OpenSSL does not take for a certificate and its key ({error.reason})"
    except ValueError as error:
        return f"{error}"
    finally:
        for handle in handles:
            os.close(handle)
    return None


def mismatch(certificate: str, key: str) -> str | None:
    """
    Why a certificate and a private key do not go together.

    certificate, key
        the absolute paths of PEM files, or their texts

    Returns a sentence without a word of the key; None when they are a pair, and when a file is not
    there (yet), which nginx will tell.
    """
    chain, private = contents(certificate), contents(key)
    if chain is None or private is None:
        return None
    return mismatch_of_texts(chain, private)


def openssl(*words: str, given: bytes = b"") -> str:
    try:
        done = subprocess.run(
            ["openssl", *words],
            env=ENVIRONMENT,
            input=given,
            capture_output=True,
            timeout=_OPENSSL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandExecutionError(f"openssl: {error}") from error
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip()
        raise CommandExecutionError(f"openssl {words[0]} ended with {done.returncode}: {told}")
    return done.stdout.decode("utf-8", "replace")


def first(pem: bytes) -> str | None:
    """The first certificate of a PEM text: the site's own."""
    found = re.search(
        r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----",
        pem.decode("utf-8", "replace"),
        re.DOTALL,
    )
    return found.group() if found else None


def elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of the elements that DER (X.690, 8.1) is a row of."""
    found = []
    while der:
        tag, length, head = der[0], der[1], 2
        if length & 0x80:
            head += length & 0x7F
            length = int.from_bytes(der[2:head], "big")
        if len(der) < head + length:
            raise IndexError
        found.append((tag, der[head : head + length]))
        der = der[head + length :]
    return found


def fields_of(own: str) -> list[tuple[int, bytes]]:
    """The fields of a certificate (RFC 5280, 4.1)."""
    return elements(elements(elements(ssl.PEM_cert_to_DER_cert(own))[0][1])[0][1])


def validity_of(own: str) -> tuple[float, float]:
    """From when until when a certificate is good (RFC 5280, 4.1.2.5), without a process for it."""
    try:
        fields = fields_of(own)
        # Behind serial number, algorithm and issuer, and the version where there is one.
        validity = elements(fields[4 if fields[0][0] == 0xA0 else 3][1])
        times = []
        for tag, text in validity[:2]:
            # UTCTime has two digits for the year: below 50 they are of this century.
            century = "" if tag == 0x18 else "20" if text < b"5" else "19"
            moment = time.strptime(century + text.decode("ascii"), "%Y%m%d%H%M%SZ")
            times.append(float(calendar.timegm(moment)))
        since, until = times
    except (IndexError, ValueError) as error:
        raise CommandExecutionError(f"this is not a certificate: {error}") from error
    return since, until


def facts_of(pem: bytes) -> dict[str, Any]:
    """What a certificate says of itself."""
    own = first(pem)
    if own is None:
        raise CommandExecutionError("there is no certificate in it")
    since, until = validity_of(own)
    words = ["-noout", "-subject", "-issuer", "-ext", "subjectAltName"]
    text = openssl("x509", *words, given=own.encode())
    lines = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[a-zA-Z]+=", line))
    return {
        "names": sorted(re.findall(r"(?:DNS|IP Address):([^,\s]+)", text)),
        "issuer": lines["issuer"].strip(),
        "self_signed": lines["issuer"] == lines["subject"],
        **end(until),
        "lifetime": until - since,
        "left": until - time.time(),
        "sha256": hashlib.sha256(ssl.PEM_cert_to_DER_cert(own)).hexdigest(),
    }


def end(until: float) -> dict[str, Any]:
    return {
        "not_after": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until)),
        "days_left": int((until - time.time()) // 86400),
    }


def describe(pem: bytes | None) -> str | None:
    """
    A certificate file in one line, for a person: names, end and fingerprint, nothing of the key.

    pem
        the file's contents

    Returns the line; None for None.
    """
    if pem is None:
        return None
    try:
        facts = facts_of(pem)
    except CommandExecutionError:
        return "a file without a certificate"
    return (
        f"a certificate for {', '.join(facts['names']) or 'no name'}, until {facts['not_after']}, "
        f"by {facts['issuer']}, sha256 {facts['sha256']}"
    )
