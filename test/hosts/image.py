"""
The shared images: a minimal Debian per release.  Like a fresh cloud image it has no lists of apt and
no downloaded packages.
"""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import shutil
import time
import uuid

from . import outer
from .paths import HostError, cache, lock
from .tools import ensure_tools, run

RELEASES = ("bookworm", "trixie", "forky")

# Raise it when _make() does something else than before.
_RECIPE = 2
# What a freshly installed cloud image has and a bare debootstrap has not.
INCLUDED = "systemd-sysv,dbus,apt,iproute2,python3,ca-certificates,procps"
# Kept beside an image, for the archives that tests make (repository.py).
DOWNLOADED = ("nginx", "nginx-common")


def _key(release: str) -> str:
    """The image's name: changes with the recipe, and weekly with the mirror's contents."""
    recipe = json.dumps(
        [
            _RECIPE,
            INCLUDED,
            DOWNLOADED,
            outer.apt_sources(release),
            outer.apt_settings(),
            outer.certificates(),
        ]
    )
    year, week, _ = datetime.datetime.now(datetime.timezone.utc).isocalendar()
    return f"{release}-{year}w{week:02d}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _make(release: str, target: pathlib.Path) -> None:
    archive, security = outer.mirrors()
    settings = target.parent / f"{target.name}.aptconf"
    settings.write_text("\n".join([*outer.apt_settings(), ""]), "utf-8")
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    run(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={INCLUDED}",
        f"--aptopt={settings}",
        release,
        target,
        f"deb {keyring} {archive} {release} main",
        f"deb {keyring} {archive} {release}-updates main",
        f"deb {keyring} {security} {release}-security main",
        timeout=1200,
    )
    settings.unlink()
    etc = target / "etc"
    for path in [etc / "apt/sources.list", *(etc / "apt/sources.list.d").iterdir()]:
        path.unlink(missing_ok=True)
    (etc / "apt/sources.list.d/debian.sources").write_text(outer.apt_sources(release), "utf-8")
    (etc / "apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    (etc / "apt/apt.conf.d/90test-machine").write_text(
        # As Debian's own container images: half of a refresh would be translations.
        "\n".join([*outer.apt_settings(), 'Acquire::Languages "none";', ""]),
        "utf-8",
    )
    _trust(target)
    shutil.copyfile("/etc/resolv.conf", etc / "resolv.conf")
    run("chroot", target, "apt-get", "-q", "update")
    (target / "debs").mkdir()
    download = f"cd /debs && apt-get -q download {' '.join(DOWNLOADED)}"
    run("chroot", target, "sh", "-c", download)
    for path in (target / "var/lib/apt/lists").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for cached in (target / "var/cache/apt").glob("*.bin"):
        cached.unlink()
    # A unit that waits for a keyboard or a disk that is not there makes the host "degraded".
    (etc / "machine-id").write_text("", "utf-8")


def _trust(target: pathlib.Path) -> None:
    """Let the image trust the authorities that this machine trusts beyond Debian's own."""
    bundle = target / "etc/ssl/certs/ca-certificates.crt"
    known = bundle.read_text("utf-8") if bundle.exists() else ""
    extra = [pem for pem in outer.certificates() if pem not in known]
    for number, pem in enumerate(extra):
        path = target / f"usr/local/share/ca-certificates/test-machine-{number}.crt"
        path.write_text(pem + "\n", "utf-8")
    if extra:
        run("chroot", target, "update-ca-certificates")


def debs(ready: pathlib.Path) -> pathlib.Path:
    """The directory of the packages that were downloaded for an image (``DOWNLOADED``)."""
    return cache() / "debs" / ready.name


def used_images() -> set[str]:
    """Names of images that an overlay is mounted on."""
    used = set()
    for record in (cache() / "hosts").glob("*/state.json"):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            used.add(os.path.basename(json.loads(record.read_text("utf-8"))["image"]))
    return used


def image(release: str) -> pathlib.Path:
    """
    The image of a release, made first if need be (half a minute).

    release
        ``bookworm`` (Debian 12), ``trixie`` (Debian 13) or ``forky`` (Debian 14)
    """
    if release not in RELEASES:
        raise HostError(f"there is no image {release!r}: only {', '.join(RELEASES)}")
    ensure_tools()
    folder = cache() / "images"
    ready = folder / _key(release)
    if ready.is_dir():
        return ready
    with lock(f"image-{release}"):
        if ready.is_dir():
            return ready
        folder.mkdir(parents=True, exist_ok=True)
        used = used_images()
        for old in folder.glob(f"{release}-*"):
            # Not a younger one: another checkout may be testing with it.
            if old.name not in used and time.time() - old.stat().st_mtime > 14 * 86400:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
                shutil.rmtree(debs(old), ignore_errors=True)
        for half in folder.glob(f".{release}-*"):
            shutil.rmtree(half) if half.is_dir() else half.unlink()
        # The leading part names the release, so that a killed attempt is swept by the next one.
        building = folder / f".{release}-{uuid.uuid4().hex[:8]}"
        print(f"making the {release} image", flush=True)
        _make(release, building)
        shutil.rmtree(debs(ready), ignore_errors=True)
        debs(ready).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(building / "debs", debs(ready))
        building.rename(ready)
    return ready
