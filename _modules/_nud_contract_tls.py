"""
The keys under ``tls`` and ``acme``, and their cross-checks.
"""

import re

from _nud import pem_text
from _nud_contract_patterns import LABEL, PATH, PEM_CHAIN, PEM_KEY, path_key
from _nud_contract_schema import Derived, Mapping, Number, Switch, Text, listing, meaning_error
from _nud_contract_serving import listen_list


def tls_keys() -> Mapping:
    return Mapping(
        {
            "certificate": Text(
                "the absolute path of a PEM file on the host, or its text",
                rf"{PATH}|{PEM_CHAIN}",
                most=65536,
                nullable=True,
                default=None,
                # A key in its place is wrong, and not for the report to repeat.
                private=True,
                advice=(
                    (r"[\s\S]*PRIVATE KEY[\s\S]*", "the private key goes to tls:key"),
                    (r"[\s\S]*-----BEGIN[\s\S]*", "CERTIFICATE blocks alone, without other text"),
                ),
                description="The certificate with its chain, the site's own first: a PEM file that "
                "somebody keeps on the host, or the text itself. With it goes `tls:key`.",
                example="/etc/ssl/private/www.example.org.pem",
            ),
            "key": Text(
                "the absolute path of a PEM file on the host, or its text, not encrypted",
                rf"{PATH}|{PEM_KEY}",
                most=65536,
                nullable=True,
                default=None,
                secret=True,
                advice=(
                    (
                        r"[\s\S]*ENCRYPTED[\s\S]*",
                        "nobody is there to type a passphrase: decrypt it",
                    ),
                    (
                        r"[\s\S]*-----BEGIN[\s\S]*",
                        "one PRIVATE KEY block alone, without other text",
                    ),
                ),
                description="The certificate's private key, as path or text like `tls:certificate`. "
                "The text is kept in a file that root alone reads, and shown nowhere.",
                example="/etc/ssl/private/www.example.org.pem",
            ),
            "acme": Switch(
                default=False,
                description="true: the certificate is asked for, and renewed, by ACME (Let's "
                "Encrypt, for example) with certbot: see `acme`. Until the first one arrives nginx "
                "has a self-signed one, and plain HTTP is not redirected.",
            ),
            "listen": listen_list(
                Derived(
                    "as listen, with 443 in the place of 80; [443] where nothing listens on 80"
                ),
                "Where nginx speaks TLS for the site, once it has a certificate.",
                [443, "[::]:443"],
            ),
            "redirect": Switch(
                default=True,
                description="What is asked for by plain HTTP is redirected to HTTPS.",
            ),
            "hsts": Number(
                "a number of seconds; 0 is none",
                0,
                2**31 - 1,
                default=63072000,
                description="How long browsers are to ask for HTTPS alone "
                "(Strict-Transport-Security), where `tls:redirect` is on. Two years, as Mozilla "
                "recommends: a site that may have to go back to plain HTTP says 0.",
                example=300,
            ),
        },
        description="TLS, at the intermediate level of Mozilla's recommendations. A site has it "
        "when it has a certificate and a key, or `acme: true`.",
    )


def acme_keys() -> Mapping:
    return Mapping(
        {
            "email": Text(
                "an e-mail address",
                r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
                most=254,
                nullable=True,
                default=None,
                refuse=((r"-.*", "certbot would take it for an option"),),
                description="Where the certificate authority writes to; null: it has no address.",
                example="ops@example.org",
            ),
            "terms_agreed": Switch(
                default=False,
                description="true: the authority's terms of service have been read and agreed to. "
                "Nothing is asked for without it.",
            ),
            "directory": Text(
                "the https URL of an ACME directory",
                r"https://[A-Za-z0-9._~:/\[\]-]+",
                most=1024,
                default="https://acme-v02.api.letsencrypt.org/directory",
                description="The authority. Another one than that of the certificate on the host: "
                "a new certificate is asked for.",
                example="https://acme-staging-v02.api.letsencrypt.org/directory",
            ),
            "ca": path_key(
                "Certificates (PEM) that the ACME server's own is checked with, where the system's "
                "do not do; certbot's timer, too, then trusts these alone.",
                nullable=True,
                default=None,
                example="/etc/ssl/certs/company-root.pem",
            ),
        },
        description="The account for the sites with `tls:acme: true`.",
    )


def check_tls(name: str, site: dict, acme: dict, errors: list) -> None:
    """One site's certificate: where it comes from, and that its key is its own."""
    path, tls = ("sites", name), site["tls"]
    given = {key: tls[key] for key in ("certificate", "key") if tls[key] is not None}
    if tls["acme"]:
        _check_acme(name, site, acme, errors)
    if tls["acme"] and given:
        errors.append(
            meaning_error(
                (*path, "tls", "acme"),
                f"true, as well as a {listing(given)}",
                "either tls:acme, or tls:certificate and tls:key",
                "write null for these where site_defaults names them",
            )
        )
    elif len(given) == 1:
        lacking = "key" if "certificate" in given else "certificate"
        errors.append(
            meaning_error(
                (*path, "tls", lacking),
                "nothing, while the other of certificate and key is there",
                "both tls:certificate and tls:key, or neither",
            )
        )
    elif given and len({value.startswith("/") for value in given.values()}) == 2:
        errors.append(
            meaning_error(
                (*path, "tls", "key"),
                "a path beside a text",
                "certificate and key both as paths, or both as texts",
            )
        )
    elif given:
        try:
            wrong = pem_text.mismatch(**given)
        except OSError as error:
            # A directory, or a disk that fails.
            wrong = f"{error.filename} ({error.strerror})"
        if wrong:
            errors.append(
                meaning_error(
                    (*path, "tls", "key"),
                    wrong,
                    "a certificate and the private key that belongs to it",
                )
            )


def _check_acme(name: str, site: dict, acme: dict, errors: list) -> None:
    if not acme["terms_agreed"]:
        found = meaning_error(
            ("acme", "terms_agreed"),
            f"false, while the site {name} asks for a certificate by ACME",
            "true: the authority issues none to who has not agreed to its terms",
        )
        if not any(error["path"] == found["path"] for error in errors):
            errors.append(found)
    names = [
        (key, number, word)
        for key in ("server_names", "redirect_from")
        for number, word in enumerate(site[key])
    ]
    for key, number, word in names:
        if not re.fullmatch(rf"{LABEL}(?:\.{LABEL})*\.[A-Za-z][A-Za-z0-9-]*", word):
            errors.append(
                meaning_error(
                    ("sites", name, key, number),
                    f"{word!r}, in a site with tls:acme",
                    "a whole domain name: a certificate for a wildcard, an address or a bare word "
                    "cannot be had by HTTP",
                    "give such a site a certificate by tls:certificate and tls:key",
                )
            )
