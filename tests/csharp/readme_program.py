"""The C# programs of README.md and of the packages' READMEs, in a fresh project that references the packages alone."""

import re
from collections.abc import Mapping
from pathlib import Path

from protos.generate import ROOT

VERSION = "0.0.1-test"
"""Version of the packages that the test makes."""

PACKAGES = ("Client", "Extensions.AI", "Testing")
"""Packages with a program in their README."""

_PROJECT = """\
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net10.0</TargetFramework>
    <ImplicitUsings>enable</ImplicitUsings>
    <Nullable>enable</Nullable>
    <TreatWarningsAsErrors>true</TreatWarningsAsErrors>
    <NoWarn>$(NoWarn);MEAI001</NoWarn>
    <RestoreAdditionalProjectSources>{packages}</RestoreAdditionalProjectSources>
    <RestoreFallbackFolders>{known}</RestoreFallbackFolders>
  </PropertyGroup>
  <ItemGroup>
{references}
  </ItemGroup>
</Project>
"""
_CLASS = """\
namespace Readme
{{
{usings}

    internal static class {name}
    {{
        internal static async Task Run(string[] args)
        {{
{body}
        }}
    }}
}}
"""
_MAIN = """\
foreach (var run in new Func<string[], Task>[] {{ {runs} }})
{{
    await run(args);
}}
"""


def programs() -> Mapping[str, str]:
    """The first block of C# of each README, word for word, by a name for it."""
    found = {"Main": _first_block(ROOT / "README.md", "## From C#")}
    for package in PACKAGES:
        readme = ROOT / "clients" / "csharp" / f"DeviceOps.{package}" / "README.md"
        found[package.replace(".", "")] = _first_block(readme, "# DeviceOps")
    return found


def _first_block(readme: Path, heading: str) -> str:
    text = readme.read_text("utf-8")
    found = re.search(rf"^{re.escape(heading)}.*?^```csharp\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"{readme} has no C# program"
    return found.group(1)


def _as_class(name: str, program: str) -> str:
    """A program as one method: two files with top-level statements cannot be in one project."""
    lines = program.splitlines()
    usings = [line for line in lines if re.match(r"using [\w.]+;", line)]
    body = [line for line in lines if line not in usings]
    return _CLASS.format(name=name, usings="\n".join(usings), body="\n".join(body))


def write_project(folder: Path, packages: Path, known: Path) -> None:
    """Writes a console project as `dotnet new console` and `dotnet add package` leave it, with all programs.

    `known` holds unpacked packages of others, which the project then need not unpack again.
    """
    folder.mkdir()
    references = "\n".join(
        f'    <PackageReference Include="DeviceOps.{name}" Version="{VERSION}" />' for name in PACKAGES
    )
    project = _PROJECT.format(packages=packages, known=known, references=references)
    (folder / "Apple.csproj").write_text(project, "utf-8")
    found = programs()
    for name, program in found.items():
        (folder / f"{name}.cs").write_text(_as_class(name, program), "utf-8")
    runs = ", ".join(f"Readme.{name}.Run" for name in found)
    (folder / "Program.cs").write_text(_MAIN.format(runs=runs), "utf-8")
