// A host whose pictures come from IImageGenerator. One line says who makes them; the rest knows Microsoft.Extensions.AI alone.
//
//     dotnet run -- "a red apple" apple.png --DeviceOps:Address=http://127.0.0.1:50051

using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

var words = args.Where(word => !word.StartsWith("--", StringComparison.Ordinal)).ToArray();
var (prompt, file) = (words.ElementAtOrDefault(0) ?? "a red apple", words.ElementAtOrDefault(1) ?? "apple.png");

var builder = Host.CreateApplicationBuilder(args);
builder.Services.AddDeviceOpsClient(builder.Configuration.GetSection("DeviceOps"));
builder.Services.AddDeviceOpsImageGenerator().UseLogging().UseOpenTelemetry();      // the one line
using var host = builder.Build();

using var generator = host.Services.GetRequiredService<IImageGenerator>();
var response = await generator.GenerateImagesAsync(prompt, new ImageGenerationOptions { MediaType = "image/png" });
foreach (var picture in response.Contents.OfType<DataContent>())
{
    await File.WriteAllBytesAsync(file, picture.Data.ToArray());
    Console.WriteLine($"{file}: {picture.Data.Length} bytes, {response.Usage?.AdditionalCounts?["steps"]} steps");
}
