"""Writes the one file that names every contract type by its simple name under the usings that C# projects have.

A type called `Task` or `Status` compiles by itself and is ambiguous in every real program; only such a file shows it.
"""

from google.protobuf.descriptor_pb2 import FileDescriptorSet

USINGS = [
    "System",
    "System.Collections.Generic",
    "System.IO",
    "System.Linq",
    "System.Net.Http",
    "System.Threading",
    "System.Threading.Tasks",
    "Grpc.Core",
]


def name_check(contract: FileDescriptorSet) -> str:
    """The C# source."""
    namespaces = sorted({file.options.csharp_namespace for file in contract.file})
    types = [thing.name for file in contract.file for thing in (*file.message_type, *file.enum_type, *file.service)]
    usings = "\n".join(f"using {name};" for name in [*USINGS, *namespaces])
    names = "\n".join(f"            typeof({name})," for name in sorted(types))
    return f"""{usings}

namespace DeviceOps.Client
{{
    internal static class NameCheck
    {{
        internal static readonly Type[] Names =
        {{
{names}
        }};
    }}
}}
"""
