using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("DeviceOps.Client.Tests")]
