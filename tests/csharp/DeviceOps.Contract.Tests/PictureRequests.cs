using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Postprocessing.V1;
using Google.Protobuf;

namespace DeviceOps.Contract.Tests;

/// <summary>One request for each thing that people ask of an image server, written as a .NET program would write it.</summary>
internal static class PictureRequests
{
    private const string Portrait = "portrait of a lighthouse keeper";

    /// <summary>Every request, by the name that people search for.</summary>
    public static IReadOnlyDictionary<string, Generation> All { get; } = new Dictionary<string, Generation>
    {
        ["several seeds"] = new()
        {
            Prompt = Portrait,
            Sampling = new() { Seeds = { 1, 42, long.MaxValue } },
        },
        ["variation seed"] = new()
        {
            Prompt = Portrait,
            Sampling = new() { Seed = 42, SeedVariation = new() { Seed = 43, Strength = 0.2 } },
        },
        ["sampler and schedule"] = new()
        {
            Prompt = Portrait,
            Sampling = new() { Sampler = "dpmpp_2m", SigmaSchedule = "karras", Steps = 24, GuidanceScale = 6.5 },
        },
        ["custom sigmas"] = new()
        {
            Prompt = Portrait,
            Sampling = new() { Sampler = "euler", Sigmas = { 14.6, 6.5, 2.1, 0.7, 0 } },
        },
        ["custom timesteps"] = new()
        {
            Prompt = Portrait,
            Sampling = new() { Sampler = "ddim", Timesteps = { 999, 759, 500, 259, 0 } },
        },
        ["guidance interval"] = new()
        {
            Prompt = Portrait,
            Sampling = new() { GuidanceScale = 8, GuidanceStartRatio = 0.1, GuidanceEndRatio = 0.8, GuidanceRescale = 0.7 },
        },
        ["flux with T5 in eight bits"] = new()
        {
            Prompt = Portrait,
            ModelId = "flux1-dev",
            Sampling = new() { DistilledGuidance = 3.5, FlowShift = 1.15 },
            Execution = new() { Precision = Precision.Bfloat16, TextEncoderPrecision = Precision.Float8, Quantization = "fp8_e4m3" },
        },
        ["flux from separate files"] = new()
        {
            Prompt = Portrait,
            ModelId = "flux1-dev-transformer",
            Components =
            {
                new ComponentSource { ComponentId = "text_encoder", ModelId = "clip-l" },
                new ComponentSource { ComponentId = "text_encoder_2", ModelId = "t5-xxl", Precision = Precision.Float8 },
                new ComponentSource { ComponentId = "vae", ModelId = "flux-vae" },
            },
        },
        ["sd3 without T5"] = new()
        {
            Prompt = Portrait,
            ModelId = "sd3.5-medium",
            Components = { new ComponentSource { ComponentId = "text_encoder_3", Omitted = true } },
        },
        ["another VAE, in tiles"] = new()
        {
            Prompt = Portrait,
            Components = { new ComponentSource { ComponentId = "vae", ModelId = "vae-ft-mse" } },
            Execution = new() { VaeTiling = true, VaeTilePx = 512, AttentionKernel = "memory_efficient", Offload = OffloadMode.Component },
        },
        ["a model that is loaded"] = new() { Prompt = Portrait, LoadedModelId = "lm-1", RequireLoadedModel = true },
        ["A1111 prompt"] = new()
        {
            Prompt = "(lighthouse:1.3) BREAK [sea:storm:0.5], [red|blue] coat",
            NegativePrompt = "(blurry:1.2)",
            PromptSyntax = PromptSyntax.A1111,
            LongPrompt = LongPrompt.Chunk,
            ClipSkip = 1,
        },
        ["ComfyUI prompt"] = new() { Prompt = "(lighthouse:1.3) at night", PromptSyntax = PromptSyntax.Comfyui },
        ["blended prompts"] = new()
        {
            Prompt = "a lighthouse",
            BlendedPrompts = { new WeightedPrompt { Prompt = "a rocket", Weight = 0.6 } },
        },
        ["three text encoders"] = new() { Prompt = Portrait, SecondPrompt = "oil painting", ThirdPrompt = "an old man looks at the sea" },
        ["regional prompts"] = new()
        {
            Prompt = "a coast",
            WidthPx = 768,
            HeightPx = 512,
            Regions =
            {
                new RegionalPrompt
                {
                    Rectangle = new() { LeftPx = 0, TopPx = 0, WidthPx = 384, HeightPx = 512 },
                    Prompt = "a lighthouse",
                    Weight = 1.2,
                },
                new RegionalPrompt
                {
                    Mask = Blob("right-half"),
                    Prompt = "a ship",
                    EndRatio = 0.7,
                    Loras = { new LoraInput { ModelId = "ships", Weight = 0.8 } },
                },
            },
        },
        ["image to image"] = new()
        {
            Prompt = Portrait,
            InitImage = new() { Image = Blob("sketch"), Strength = 0.6, Fit = ImageFit.Cover },
        },
        ["inpainting"] = new()
        {
            Prompt = "a dog",
            InitImage = new() { Image = Blob("photo"), Strength = 0.9 },
            Mask = new() { Image = Blob("mask"), BlurPx = 12, DilationPx = 4, ZoomToMask = true, Fill = MaskFill.Noise },
        },
        ["outpainting"] = new()
        {
            Prompt = "a wide beach",
            InitImage = new() { Image = Blob("photo") },
            Outpaint = new() { LeftPx = 128, RightPx = 128, OverlapPx = 48 },
        },
        ["editing with a reference"] = new()
        {
            Prompt = "make it night",
            ReferenceImages = { new ReferenceImage { Image = Blob("photo") }, new ReferenceImage { Image = Blob("style") } },
        },
        ["pix2pix"] = new()
        {
            Prompt = "make it night",
            ReferenceImages = { new ReferenceImage { Image = Blob("photo") } },
            Sampling = new() { ImageGuidanceScale = 1.6, GuidanceScale = 7 },
        },
        ["seamless texture"] = new() { Prompt = "mossy stone", SeamlessX = true, SeamlessY = true },
        ["latents out"] = new() { Prompt = Portrait, Sampling = new() { Steps = 30, LastStep = 20 }, ReturnLatents = true },
        ["latents in"] = new()
        {
            Prompt = Portrait,
            InitLatents = new() { BlobId = "b-latents" },
            Sampling = new() { Steps = 30, FirstStep = 20, AddNoise = false },
        },
        ["LoRA by step, component and block"] = new()
        {
            Prompt = Portrait,
            Loras =
            {
                new LoraInput
                {
                    ModelId = "ink",
                    Weight = 2.5,
                    EndRatio = 0.6,
                    ComponentWeights =
                    {
                        new LoraComponentWeight { ComponentId = "unet", Weight = 3, BlockWeights = { 1, 1, 0.5, 0, 0.5, 1, 1 } },
                        new LoraComponentWeight { ComponentId = "text_encoder", Weight = 0 },
                    },
                },
            },
        },
        ["textual inversion"] = new()
        {
            Prompt = "a <keeper> at sea",
            TextualInversions = { new TextualInversionInput { ModelId = "keeper", Token = "<keeper>" } },
        },
        ["several ControlNets"] = new()
        {
            Prompt = Portrait,
            Controls =
            {
                new ControlInput { ModelId = "canny", Image = Blob("photo"), Preprocessing = new() { Canny = new() { LowThreshold = 80 } } },
                new ControlInput { ModelId = "union", Image = Blob("depth"), ControlType = "depth", Weight = 0.8, EndRatio = 0.5 },
                new ControlInput { ModelId = "tile", Image = Blob("photo"), Preprocessing = new() { Tile = new() { Downscale = 2 } } },
                new ControlInput { ModelId = "shuffle", Image = Blob("style"), Preprocessing = new() { Shuffle = new() { Seed = 3 } } },
                new ControlInput { ModelId = "pose", Image = Blob("pose"), Region = Blob("left-half"), Balance = ControlBalance.Control },
            },
        },
        ["inpainting ControlNet"] = new()
        {
            Prompt = "a dog",
            InitImage = new() { Image = Blob("photo") },
            Mask = new() { Image = Blob("mask") },
            Controls = { new ControlInput { ModelId = "inpaint", Image = Blob("photo"), Preprocessing = new() { Inpaint = new() } } },
        },
        ["IP-Adapter"] = new()
        {
            Prompt = Portrait,
            ImagePrompts =
            {
                new ImagePrompt
                {
                    ModelId = "ip-adapter-plus",
                    Images = { Blob("style-1"), Blob("style-2") },
                    Mode = ImagePromptMode.Style,
                    NegativeImage = Blob("noise"),
                    Weight = 0.7,
                },
            },
        },
        ["SDXL refiner"] = new()
        {
            Prompt = Portrait,
            ModelId = "sdxl-base",
            Refiner = new() { ModelId = "sdxl-refiner", StartRatio = 0.8 },
            SizeConditioning = new() { OriginalSize = new() { WidthPx = 2048, HeightPx = 2048 } },
        },
        ["hires fix"] = new()
        {
            Prompt = Portrait,
            HiresPass = new()
            {
                Size = new() { WidthPx = 1536, HeightPx = 1024 },
                UpscalerModelId = "4x-sharp",
                Strength = 0.35,
                Steps = 15,
                Sampler = "dpmpp_2m",
                Prompt = "sharp details",
                GuidanceScale = 5,
            },
        },
        ["face detailer"] = new()
        {
            Prompt = Portrait,
            DetailPasses =
            {
                new DetailPass
                {
                    Detector = new() { Label = "face", MinConfidenceRatio = 0.4, MaxCount = 2 },
                    Strength = 0.35,
                    Prompt = "a weathered face",
                },
            },
        },
        ["finished in one go"] = new()
        {
            Prompt = Portrait,
            Postprocessing =
            {
                new PostprocessingStep { Upscale = new() { Factor = 2 } },
                new PostprocessingStep { RestoreFaces = new() { FidelityRatio = 0.7 }, OnError = StepErrorAction.Skip },
            },
            SafetyPolicyId = "strict",
        },
        ["files"] = new()
        {
            Prompt = Portrait,
            Output = new() { MediaType = "image/webp", Lossless = true, Manifest = ManifestDetail.Recipe, Provenance = true },
        },
        ["sixteen bits with A1111's text"] = new()
        {
            Prompt = Portrait,
            Output = new() { MediaType = "image/png", BitDepth = 16, A1111Parameters = true },
        },
        ["a small picture inline"] = new()
        {
            Prompt = Portrait,
            InitImage = new() { Image = new ImageInput { Data = ByteString.CopyFrom(0x89, 0x50, 0x4E, 0x47) } },
        },
    };

    private static ImageInput Blob(string id) => new() { BlobId = id };
}
