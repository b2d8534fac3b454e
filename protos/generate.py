"""protos → generated/python (messages, gRPC stubs, their types) and generated/csharp (messages, service stubs).

    python protos/generate.py            writes both trees, removing what no proto makes any more
    python protos/generate.py --check    writes nothing; names every file that drifted, is missing or is an orphan; exit 1

One protoc makes everything: the one inside the pinned `grpcio-tools`. C# service stubs also need `grpc_csharp_plugin`
(of the NuGet package Grpc.Tools) on PATH; without it they are left as they are, and the output says so.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
GENERATED = ROOT / "generated"
GOOGLE_PROTOS = Path(grpc_tools.__file__).parent / "_proto"
CSHARP_ROOT = "DeviceOps.Api"
"""What all C# namespaces of the contract begin with; the rest of a namespace is the folder of its files."""


class GenerationFailed(Exception):
    """protoc refused; the text is what it said."""


@dataclass(frozen=True)
class Difference:
    """One file that is not what the protos make."""

    kind: str
    """`drifted`, `missing` or `orphaned`."""
    path: str
    """Relative to `generated/`, with `/`."""


def proto_files(protos: Path = PROTOS) -> list[str]:
    """Paths of all contract files relative to `protos`, sorted."""
    return sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))


def describe(protos: Path = PROTOS) -> FileDescriptorSet:
    """All contract files as descriptors, with their comments, without the files of google.protobuf."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "contract.binpb"
        _protoc(protos, ["--include_source_info", f"--descriptor_set_out={target}"])
        return FileDescriptorSet.FromString(target.read_bytes())


def csharp_plugin() -> str | None:
    """Where `grpc_csharp_plugin` is, if it is to be had."""
    return shutil.which("grpc_csharp_plugin")


def csharp_stub_path(file: FileDescriptorProto) -> str | None:
    """Where the C# service stubs of one proto lie, relative to `generated/`; None for a proto without services."""
    if not file.service:
        return None
    folder = file.options.csharp_namespace.removeprefix(f"{CSHARP_ROOT}.").replace(".", "/")
    stem = "".join(word.capitalize() for word in Path(file.name).stem.split("_"))
    return f"csharp/{folder}/{stem}Grpc.cs"


def generate(out: Path, protos: Path = PROTOS) -> list[str]:
    """Writes `out/python` and `out/csharp` into an empty folder and returns the paths that had to be skipped.

    Raises `GenerationFailed` where protoc refuses a proto.
    """
    python, csharp = out / "python", out / "csharp"
    python.mkdir(parents=True)
    csharp.mkdir(parents=True)
    arguments = [
        f"--python_out={python}",
        f"--grpc_python_out={python}",
        f"--plugin=protoc-gen-mypy={_venv_tool('protoc-gen-mypy')}",
        f"--mypy_out={python}",
        f"--plugin=protoc-gen-mypy_grpc={_venv_tool('protoc-gen-mypy_grpc')}",
        f"--mypy_grpc_out={python}",
        f"--csharp_out={csharp}",
        f"--csharp_opt=base_namespace={CSHARP_ROOT}",
    ]
    if plugin := csharp_plugin():
        arguments += [
            f"--plugin=protoc-gen-grpc_csharp={plugin}",
            f"--grpc_csharp_out={csharp}",
            f"--grpc_csharp_opt=base_namespace={CSHARP_ROOT}",
        ]
    _protoc(protos, arguments)
    _remove_empty_stubs(python, protos)
    _make_packages(python)
    return [] if plugin else sorted(path for file in describe(protos).file if (path := csharp_stub_path(file)))


def compare(fresh: Path, kept: Path, skipped: Iterable[str]) -> list[Difference]:
    """What would change in `kept` if it became `fresh`, skipped paths aside."""
    made, there = _files(fresh), _files(kept) - set(skipped)
    changed = {path for path in made & there if (fresh / path).read_bytes() != (kept / path).read_bytes()}
    kinds = {"drifted": changed, "missing": made - there, "orphaned": there - made}
    return sorted((Difference(kind, path) for kind, paths in kinds.items() for path in paths), key=lambda d: d.path)


def apply(differences: Iterable[Difference], fresh: Path, kept: Path) -> None:
    """Makes `kept` equal to `fresh`, touching only the files that differ."""
    for difference in differences:
        target = kept / difference.path
        if difference.kind == "orphaned":
            target.unlink()
            _remove_empty_folders(target.parent, kept)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / difference.path, target)


def _protoc(protos: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"-I{GOOGLE_PROTOS}", *arguments]
    # The Python generators must not see a PYTHONPATH of the caller that brings another protobuf runtime.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, *proto_files(protos)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise GenerationFailed(done.stderr.strip())


def _venv_tool(name: str) -> str:
    """The plugin that was installed beside this Python, else the one on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        raise GenerationFailed(f"{name} is missing; pip install -c constraints.txt -e '.[dev]'")
    return found


def _remove_empty_stubs(python: Path, protos: Path) -> None:
    """grpc_python_out writes a `_pb2_grpc.py` for files without services too; they would only mislead."""
    for file in describe(protos).file:
        if not file.service:
            for suffix in ("py", "pyi"):
                (python / f"{file.name.removesuffix('.proto')}_pb2_grpc.{suffix}").unlink(missing_ok=True)


def _make_packages(python: Path) -> None:
    """Ordinary packages with types, so that every tool finds them without knowing namespace packages."""
    for folder in [path for path in python.rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()
    for package in python.iterdir():
        (package / "py.typed").touch()


def _files(folder: Path) -> set[str]:
    """Every generated file below a folder. What Python leaves beside its sources is not one."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def _remove_empty_folders(folder: Path, stop: Path) -> None:
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    while folder != stop and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _say_skipped(skipped: list[str]) -> None:
    if skipped:
        print(f"skipped: {len(skipped)} C# service stubs, grpc_csharp_plugin is not on PATH:")
        print(*(f"  generated/{path}" for path in skipped), sep="\n")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done or current, 1 out of date or refused."""
    parser = argparse.ArgumentParser(description="Makes generated/ from protos/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if generated/ is out of date")
    check: bool = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "generated"
        try:
            skipped = generate(fresh)
        except GenerationFailed as error:
            print(error, file=sys.stderr)
            return 1
        differences = compare(fresh, GENERATED, skipped)
        if not check:
            apply(differences, fresh, GENERATED)
    for difference in differences:
        print(f"{difference.kind}: generated/{difference.path}")
    _say_skipped(skipped)
    if check and differences:
        print("generated/ is out of date: run `make generate`", file=sys.stderr)
    return 1 if check and differences else 0


if __name__ == "__main__":
    sys.exit(main())
