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
                description="The certificate with its chain, the site's certificate first: the "
                "path of a PEM file that you maintain on the host, or the PEM text. Needs "
                "`tls:key`.",
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
                description="The private key of the certificate, as a path or as PEM text. The "
                "text is stored in a file that only root can read, and never shown.",
                example="/etc/ssl/private/www.example.org.pem",
            ),
            "acme": Switch(
                default=False,
                description="true: get and renew the certificate by ACME, for example from Let's "
                "Encrypt, with certbot. See `acme`. Until the first certificate arrives, nginx "
                "keeps the certificate that it has for the site's names or uses a self-signed one, "
                "and does not redirect HTTP.",
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
                description="Redirect HTTP requests to HTTPS.",
            ),
            "hsts": Number(
                "a number of seconds; 0 is none",
                0,
                2**31 - 1,
                default=63072000,
                description="Seconds for which browsers use HTTPS only (Strict-Transport-Security "
                "header). Sent only if `tls:redirect` is on. The default is two years, as Mozilla "
                "recommends. Set 0 if the site may return to HTTP.",
                example=300,
            ),
        },
        description="TLS with Mozilla's intermediate configuration. It is on if the site has a "
        "certificate and a key, or `acme: true`.",
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
                description="Contact address for the ACME account. null: register without an "
                "address.",
                example="ops@example.org",
            ),
            "terms_agreed": Switch(
                default=False,
                description="true: you agree to the authority's terms of service. No certificate "
                "is requested without it.",
            ),
            "directory": Text(
                "the https URL of an ACME directory",
                r"https://[A-Za-z0-9._~:/\[\]-]+",
                most=1024,
                default="https://acme-v02.api.letsencrypt.org/directory",
                description="The ACME directory URL of the authority. If it changes, new "
                "certificates are requested.",
                example="https://acme-staging-v02.api.letsencrypt.org/directory",
            ),
            "ca": path_key(
                "A PEM file with root certificates for the connection to the ACME server, instead "
                "of the system's. Renewals by certbot's timer use it too.",
                nullable=True,
                default=None,
                example="/etc/ssl/certs/company-root.pem",
            ),
        },
        description="The ACME account of all sites with `tls:acme: true`.",
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
