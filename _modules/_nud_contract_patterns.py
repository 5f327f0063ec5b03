"""
Patterns and reserved names that several keys of the pillar share.

Patterns must mean the same in Python and in ECMAScript: classes are spelled out (no \\d, \\w), ends
are implied (a pattern has to match the whole value).
"""

import re
from typing import Any

from _nud_contract_schema import Text

# --- The definition ---------------------------------------------------------------------------
#
# Patterns must mean the same in Python and in ECMAScript: classes are spelled out (no \d, \w),
# ends are implied (a pattern has to match the whole value).
PATH = r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._@+-]+)+"
RELATIVE = r"(?!-)(?!\.\.?(?:/|$))[A-Za-z0-9._@+-]+(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._@+-]+)*"
PATH_SAYS = "an absolute path without . or .. in it, of letters, digits and ._@+-"
RELATIVE_SAYS = "a path inside the project, without . or .. in it, of letters, digits and ._@+-"
ACCOUNT = r"[a-z_][a-z0-9_-]{0,31}"
ACCOUNT_SAYS = "a name of 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or _"
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST = rf"{LABEL}(?:\.{LABEL})*"
PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
DOTTED = rf"{IDENTIFIER}(?:\.{IDENTIFIER})*"


# PEM (RFC 7468), without the headers of an encrypted key and without text between the blocks.
_BASE64 = r"[A-Za-z0-9+/=\r\n]+"
PEM_CHAIN = rf"(?:-----BEGIN CERTIFICATE-----{_BASE64}-----END CERTIFICATE-----[\r\n]*)+"
PEM_KEY = (
    rf"(?:-----BEGIN EC PARAMETERS-----{_BASE64}-----END EC PARAMETERS-----[\r\n]+)?"
    rf"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----{_BASE64}-----END (?:RSA |EC )?PRIVATE KEY-----[\r\n]*"
)


# No control character but the tab (DEL is one too), and no half of a surrogate pair, which YAML's
# "\ud800" yields and no file can hold.
ONE_LINE = r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*"


# The same, not empty and without blanks around it, which uWSGI would drop.
_INK = (
    r"[^\x00-\x20\x7f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff\ud800-\udfff]"
)
TRIMMED = rf"{_INK}(?:{ONE_LINE}{_INK})?"


#: Accounts that a distribution, a cloud image or a service brings: a site that ran as one of
#: them would share its files and powers (the cloud images' first users are root through sudo).
_SYSTEM_ACCOUNTS = (
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats "
    "nobody nogroup messagebus sshd ssh syslog uuidd tcpdump tss landscape polkitd pollinate "
    "ntp ntpsec chrony fwupd-refresh usbmux dnsmasq avahi rtkit lxd statd bind postfix exim "
    "debian-exim dovecot vmail postgres mysql mariadb redis memcache memcached mongodb rabbitmq "
    "elasticsearch nginx apache uwsgi salt docker libvirt-qemu prometheus grafana admin ubuntu "
    "debian ec2-user default"
)


#: Groups that are as good as root, or open other people's data.
_SYSTEM_GROUPS = (
    "sudo wheel adm disk shadow kmem tty dialout cdrom floppy tape audio video plugdev staff "
    "users utmp input kvm render sgx crontab ssl-cert netdev lxd sasl src operator"
)


def _words(words: str) -> str:
    """A pattern for any of some words; ECMAScript knows no escaped dash."""
    return "(?:" + "|".join(re.escape(word).replace(r"\-", "-") for word in words.split()) + ")"


RESERVED_ACCOUNT = (
    rf"{_words(_SYSTEM_ACCOUNTS)}|systemd-.*|_.*",
    "the name belongs to the system, to a service or to a cloud image's first user",
)
RESERVED_GROUP = (
    rf"{_words(_SYSTEM_GROUPS)}",
    "the group belongs to the system, and some such groups are as good as root",
)


# Debian's packages have uwsgi-emperor.service and the templates uwsgi-app@.service and
# uwsgi-app@.socket; what else a host has is seen there.
RESERVED_SITE = (
    r"app|emperor|.*-preflight",
    "its units would carry the name of another service's",
)
OPEN_PLACES = (
    r"/(?:tmp|var/tmp|dev/shm)(?:/.*)?",
    "anybody on the host can put a file of that name there first",
)
SYSTEM_PLACES = (
    (
        r"/(?:bin|boot|dev|etc|home|lib|lib32|lib64|libx32|lost\+found|media|mnt|opt|proc|root|run"
        r"|sbin|srv|sys|usr|var|var/[^/]*|usr/local|var/lib/[^/]*)"
        r"|/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|run|sbin|sys)/.*|/usr/(?!local/).*"
    ),
    "it is the system's own directory; a project lives in one of its own, like /srv/mysite",
)
SYSTEM_SOCKET_PLACES = (
    (
        r"/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|sbin|sys|usr)(?:/.*)?"
        r"|/run/(?:systemd|uwsgi-preflight[^/]*|dbus|udev|user|lock)/.*|/run/(?:nginx\.pid|salt.*)"
    ),
    "that place is the system's or the formula's own",
)


UNSAFE_OPTION = (
    r"[\s\S]*(?:%|\$\(|@\()[\s\S]*",
    "uWSGI replaces %, $( and @( in its configuration, and @(exec://...) even runs a command",
)


def path_key(description: str, **more: Any) -> Text:
    return Text(PATH_SAYS, PATH, most=1024, description=description, **more)
