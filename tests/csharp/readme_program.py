"""The C# program of README.md and a fresh project for it, which references the packed client and nothing else."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"

VERSION = "0.0.1-test"
"""Version of the packages that the test makes."""

_PROJECT = """\
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net10.0</TargetFramework>
    <ImplicitUsings>enable</ImplicitUsings>
    <Nullable>enable</Nullable>
    <TreatWarningsAsErrors>true</TreatWarningsAsErrors>
    <RestoreAdditionalProjectSources>{packages}</RestoreAdditionalProjectSources>
    <RestoreFallbackFolders>{known}</RestoreFallbackFolders>
  </PropertyGroup>
  <ItemGroup>
    <PackageReference Include="DeviceOps.Client" Version="{version}" />
  </ItemGroup>
</Project>
"""


def program() -> str:
    """The first block of C# in README.md, word for word."""
    found = re.search(r"^## From C#.*?^```csharp\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found, "README.md has no C# program"
    return found.group(1)


def write_project(folder: Path, packages: Path, known: Path) -> None:
    """Writes a console project as `dotnet new console` and `dotnet add package DeviceOps.Client` leave it.

    `known` holds unpacked packages of others, which the project then need not unpack again.
    """
    folder.mkdir()
    project = _PROJECT.format(packages=packages, known=known, version=VERSION)
    (folder / "Apple.csproj").write_text(project, "utf-8")
    (folder / "Program.cs").write_text(program(), "utf-8")
