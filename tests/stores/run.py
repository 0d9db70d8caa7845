"""Converts what other libraries really wrote, and lets them read what byol writes.

    run.py VENVS [--folder FOLDER] [--byol PROGRAM] [--install] [--only REGEX]

VENVS holds a Python environment for each library; --install makes those that are missing, by pip. A library without one
is skipped. FOLDER/CLASS/IMAGE.jpg are the images (tests/data/images). Exit code 1 where something differs.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent

# name: (environment, what must import)
LIBRARIES = {
    "tfrecord": ("tf", "tensorflow, tensorflow_datasets"),
    "webdataset": ("webdataset", "webdataset"),
    "mds": ("mds", "streaming, PIL"),
    "beton": ("ffcv", "ffcv"),
    "lmdb": ("stores", "lmdb, msgpack, PIL"),
    "cifar": ("stores", "numpy, PIL"),
    "hdf5": ("stores", "h5py, PIL"),
    "parquet": ("stores", "pyarrow"),
}
# name: (the environment whose packages it sees too, what each call of pip installs). mosaicml-streaming asks for the SDKs of
# five clouds, which it imports when it uploads to one: it is installed without them, and with what its own import needs.
ENVIRONMENTS = {
    "main": (None, ["torch torchvision"]),
    "tf": (None, ["tensorflow-cpu tensorflow-datasets"]),
    "webdataset": (None, ["webdataset numpy"]),
    "stores": (None, ["pillow lmdb msgpack h5py pyarrow numpy"]),
    "mds": (
        "main",
        [
            "--no-deps mosaicml-streaming==0.13.0",
            "transformers<5 numpy<2.2 xxhash<4 brotli python-snappy zstd tqdm catalogue typing_extensions pillow",
        ],
    ),
    "ffcv": ("main", ["ffcv==1.0.2 numba numpy pillow"]),  # compiled: tests/bench/setup.sh has what it wants of Debian
}
READ_BACK = ("webdataset", "tfrecord", "lmdb")


class Failure(Exception):
    pass


def call(*command, **options):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise Failure(((result.stderr or result.stdout).strip().splitlines() or ["failed without a word"])[-1])
    return result.stdout


def packages_folder(venv):
    return call(venv / "bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()


def install(venvs, name):
    """Makes the environment; one that cannot be completed goes away again."""
    base, groups = ENVIRONMENTS[name]
    venv = venvs / name
    if venv.exists():
        return
    if base:
        install(venvs, base)
    try:
        call(sys.executable, "-m", "venv", venv)
        if base:
            path = pathlib.Path(packages_folder(venv)) / f"zz-{base}.pth"
            path.write_text(packages_folder(venvs / base) + "\n")
        for packages in groups:
            call(venv / "bin/pip", "-q", "install", *packages.split())
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise


def python_of(library, arguments):
    """The environment's Python, or the reason why there is none."""
    name, imports = LIBRARIES[library]
    venv = arguments.venvs / name
    try:
        if arguments.install:
            install(arguments.venvs, name)
        call(venv / "bin/python", "-c", f"import {imports}")
    except (Failure, OSError) as problem:
        return None, str(problem)
    return venv / "bin/python", None


def sources_of(out, name):
    files = [path for path in out.glob(f"{name}.*") if path.suffix not in (".json", ".classes")]
    return sorted(files + list(out.glob(name)))


def convert(arguments, python, sources, dataset):
    environment = dict(os.environ, PATH=f"{python.parent}:{os.environ['PATH']}")  # pyarrow is called by name
    call(arguments.byol, "convert", *sources, "-o", dataset, "--quiet", env=environment)


def check_classes(arguments, dataset, listing):
    """The names of the classes, where the writer listed them."""
    wanted = listing.with_suffix(".classes")
    if wanted.exists():
        found = json.loads(call(arguments.byol, "inspect", dataset, "--json"))["classes"]
        if found != wanted.read_text().splitlines():
            raise Failure(f"{listing.stem}: the classes are {found}")


def check_writer(library, python, checker, arguments, scratch):
    out = scratch / library
    out.mkdir()
    call(python, "-B", HERE / f"write_{library}.py", arguments.folder, out)
    for listing in sorted(out.glob("*.json")):
        if not sources_of(out, listing.stem):
            continue  # a file of the library's own
        dataset = scratch / f"{library}-{listing.stem}.byol"
        convert(arguments, python, sources_of(out, listing.stem), dataset)
        report = call(checker, "-B", HERE / "check.py", dataset, listing)
        check_classes(arguments, dataset, listing)
        print(f"{library:11} {listing.stem:14} {report.split(': ', 1)[1].strip()}")


def check_reader(library, python, arguments, scratch):
    dataset, out = scratch / "ours.byol", scratch / f"{library}-ours"
    if not dataset.exists():
        call(arguments.byol, "convert", arguments.folder, "-o", dataset, "--quiet")
    paths = [dataset]
    if library != "lmdb":
        call(arguments.byol, "export-data", dataset, "--to", library, "-o", out, "--quiet")
        paths = sorted(path for path in out.iterdir() if path.name.startswith(out.name))
    report = call(python, "-B", HERE / "read_back.py", library, arguments.folder, *paths)
    print(f"{library:11} {'reads ours':14} {report.strip().splitlines()[-1].split(': ', 1)[1]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("venvs", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, default="tests/data/images")
    parser.add_argument("--byol", default="build/byol")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    arguments.venvs = arguments.venvs.resolve()
    failed = 0
    checker, why = python_of("cifar", arguments)
    if checker is None:
        sys.exit(f"skipped: what compares needs Pillow: {why}")
    with tempfile.TemporaryDirectory() as scratch:
        for library in filter(re.compile(arguments.only).search, LIBRARIES):
            python, why = python_of(library, arguments)
            if python is None:
                print(f"skipped: {library}: {why}")
                continue
            try:
                check_writer(library, python, checker, arguments, pathlib.Path(scratch))
                if library in READ_BACK:
                    check_reader(library, python, arguments, pathlib.Path(scratch))
            except Failure as problem:
                failed += 1
                print(f"{library:11} FAILED: {problem}")
            sys.stdout.flush()
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
