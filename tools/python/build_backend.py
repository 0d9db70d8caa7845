"""Builds the wheel of `byol` with the standard library alone (PEP 517).

Where the shared library comes from, the first that applies:
  BYOL_LIBRARY=FILE   a libbyol.so that is there already; copied into the wheel
  BYOL_LIBRARY=system none is put into the wheel: the installed one is found when `byol` is imported
  otherwise           `make` builds it, which needs the checkout that this folder is in
"""
import base64
import hashlib
import os
import re
import subprocess
import sysconfig
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADER = ROOT / "pipeline" / "api" / "byol.h"
SONAME = "libbyol.so.0"


def _version():
    return re.search(r'#define BYOL_VERSION +"([0-9.]+)"', HEADER.read_text()).group(1)


def _library():
    given = os.environ.get("BYOL_LIBRARY")
    if given:
        return None if given == "system" else Path(given)
    build = os.environ.get("BYOL_BUILD", str(ROOT / "build"))
    subprocess.run(["make", "-C", str(ROOT), "-j2", f"BUILD={build}", f"{build}/{SONAME}"], check=True, stdout=2)
    return Path(build) / SONAME


def _tag(library):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_") if library else "any"
    return f"py3-none-{platform}"


def _metadata(version):
    return (
        f"Metadata-Version: 2.1\nName: byol\nVersion: {version}\n"
        "Summary: Batches of augmented views of image datasets, reproducible bit for bit, without worker processes\n"
        "License: Apache-2.0\nRequires-Python: >=3.9\nRequires-Dist: numpy>=1.22\n"
        "Description-Content-Type: text/markdown\n\n" + (HERE / "README.md").read_text()
    )


def _digest(data):
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _write_wheel(path, info, files):
    """`files`: name in the wheel -> bytes. The same files give the same wheel."""
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)


def _wheel(directory, contents, library):
    version = _version()
    info, tag = f"byol-{version}.dist-info", _tag(library)
    about = f"Wheel-Version: 1.0\nGenerator: byol\nRoot-Is-Purelib: {'false' if library else 'true'}\nTag: {tag}\n"
    files = dict(contents)
    if library:
        files[f"byol/{SONAME}"] = Path(library).read_bytes()
    files[f"{info}/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files[f"{info}/METADATA"] = _metadata(version).encode()
    files[f"{info}/WHEEL"] = about.encode()
    name = f"byol-{version}-{tag}.whl"
    _write_wheel(Path(directory) / name, info, files)
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    version = f'"""The version of this package and of the library it was made with."""\n__version__ = "{_version()}"\n'
    files = {
        f"byol/{path.name}": path.read_bytes()
        for path in sorted((HERE / "byol").iterdir())
        if path.suffix in (".py", ".typed") or path.name == "py.typed"
    }
    files["byol/_version.py"] = version.encode()
    return _wheel(wheel_directory, files, _library())


def build_sdist(sdist_directory, config_settings=None):
    raise SystemExit("byol is built from its checkout: pip install ./tools/python, or pip wheel ./tools/python")
