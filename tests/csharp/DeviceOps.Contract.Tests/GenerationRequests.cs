using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Model.V1;
using DeviceOps.Api.Postprocessing.V1;
using Xunit;

namespace DeviceOps.Contract.Tests;

/// <summary>One request for each job that the contract knows and the server does not serve yet, as a .NET program writes it.</summary>
internal static class GenerationRequests
{
    private static readonly ImageInput Photo = new() { BlobId = "photo" };

    /// <summary>Each request with the beginning of the path that its refusal names.</summary>
    public static readonly IReadOnlyDictionary<string, (Generation Generation, string Field)> All = new Dictionary<string, (Generation, string)>
    {
        ["seed variation"] = (Owl(new Sampling
        {
            Seed = 1,
            SeedVariation = new SeedVariation { Seed = 2, Strength = 0.3 },
        }), "sampling.seed_variation.strength"),
        ["custom sigmas"] = (Owl(new Sampling { Sigmas = { 14.6, 5.2, 1.1, 0 } }), "sampling.sigmas"),
        ["custom timesteps"] = (Owl(new Sampling { Timesteps = { 999, 500, 1 } }), "sampling.timesteps"),
        ["hand-over after 20 of 30 steps"] = (new Generation
        {
            Prompt = "an owl",
            Sampling = new Sampling { Steps = 30, FirstStep = 20, AddNoise = false },
            InitLatents = new LatentInput { BlobId = "latents" },
            ReturnLatents = true,
        }, "sampling.first_step"),
        ["flow shift"] = (Owl(new Sampling { FlowShift = 3 }), "sampling.flow_shift"),
        ["guidance for a part of the steps"] = (Owl(new Sampling
        {
            GuidanceScale = 5,
            GuidanceStartRatio = 0.1,
            GuidanceEndRatio = 0.8,
        }), "sampling.guidance_start_ratio"),
        ["A1111 prompt"] = (new Generation
        {
            Prompt = "(an owl:1.2) BREAK [day:night:0.5]",
            PromptSyntax = PromptSyntax.A1111,
            LongPrompt = LongPrompt.Chunk,
        }, "prompt_syntax"),
        ["blended prompts"] = (new Generation
        {
            Prompt = "an owl",
            BlendedPrompts = { new WeightedPrompt { Prompt = "a cat", Weight = 0.5 } },
        }, "blended_prompts[0].prompt"),
        ["regional prompts"] = (new Generation
        {
            Prompt = "a forest",
            Regions =
            {
                new RegionalPrompt
                {
                    Rectangle = new ImageRegion { LeftPx = 0, TopPx = 0, WidthPx = 64, HeightPx = 64 },
                    Prompt = "an owl",
                    Weight = 1.5,
                    Loras = { new LoraInput { ModelId = "feathers" } },
                },
            },
        }, "regions[0].rectangle"),
        ["image to image"] = (new Generation
        {
            Prompt = "an owl",
            InitImage = new InitImage { Image = Photo, Strength = 0.6, Fit = ImageFit.Cover },
        }, "init_image.image.blob_id"),
        ["inpainting"] = (new Generation
        {
            Prompt = "an owl",
            InitImage = new InitImage { Image = Photo },
            Mask = new InpaintMask { Image = new ImageInput { BlobId = "mask" }, BlurPx = 4, Fill = MaskFill.Noise },
        }, "mask.image.blob_id"),
        ["outpainting"] = (new Generation
        {
            Prompt = "a forest",
            InitImage = new InitImage { Image = Photo },
            Outpaint = new Outpaint { LeftPx = 64, RightPx = 64 },
        }, "outpaint.left_px"),
        ["editing by reference pictures"] = (new Generation
        {
            Prompt = "make it night",
            ReferenceImages = { new ReferenceImage { Image = Photo } },
            Sampling = new Sampling { ImageGuidanceScale = 1.5 },
        }, "reference_images[0].image.blob_id"),
        ["seamless texture"] = (new Generation { Prompt = "moss", SeamlessX = true, SeamlessY = true }, "seamless_x"),
        ["LoRA by component and block"] = (new Generation
        {
            Prompt = "an owl",
            Loras =
            {
                new LoraInput
                {
                    ModelId = "feathers",
                    Weight = 2.5,
                    ComponentWeights = { new LoraComponentWeight { ComponentId = "unet", BlockWeights = { 1, 0.5, 0 } } },
                    EndRatio = 0.8,
                },
            },
        }, "loras[0].model_id"),
        ["ControlNet with a region"] = (new Generation
        {
            Prompt = "an owl",
            Controls =
            {
                new ControlInput
                {
                    ModelId = "canny",
                    Image = Photo,
                    Preprocessing = new ControlPreprocessing { Canny = new CannyPreprocessing { LowThreshold = 80 } },
                    Balance = ControlBalance.Control,
                    Region = new ImageInput { BlobId = "region" },
                    EndRatio = 0.5,
                },
            },
        }, "controls[0].model_id"),
        ["style by an IP-Adapter"] = (new Generation
        {
            Prompt = "an owl",
            ImagePrompts =
            {
                new ImagePrompt { ModelId = "ip", Images = { Photo, Photo }, Mode = ImagePromptMode.Style, NegativeImage = Photo },
            },
        }, "image_prompts[0].model_id"),
        ["hires pass"] = (new Generation
        {
            Prompt = "an owl",
            HiresPass = new HiresPass
            {
                Size = new ImageSize { WidthPx = 1024, HeightPx = 1024 },
                UpscalerModelId = "esrgan",
                Strength = 0.4,
                Sampler = "dpmpp_2m",
                SigmaSchedule = "karras",
            },
        }, "hires_pass.size"),
        ["detail pass"] = (new Generation
        {
            Prompt = "a person",
            DetailPasses = { new DetailPass { Label = "face", Prompt = "a friendly face", Strength = 0.35 } },
        }, "detail_passes[0].label"),
        ["postprocessing"] = (new Generation
        {
            Prompt = "an owl",
            Postprocessing = { new PostprocessingStep { ModelId = "esrgan", Upscale = new UpscaleStep { Factor = 4 } } },
        }, "postprocessing[0].model_id"),
        ["execution"] = (new Generation
        {
            Prompt = "an owl",
            Execution = new ExecutionOptions
            {
                Precision = Precision.Float16,
                VaePrecision = Precision.Float32,
                Quantization = "nf4",
                AttentionKernel = "flash",
                Offload = OffloadMode.Component,
                VaeTiling = true,
                Compile = true,
            },
        }, "execution.quantization"),
        ["separate files, T5 left out"] = (new Generation
        {
            Prompt = "an owl",
            Components =
            {
                new ComponentSource { ComponentId = "vae", ModelId = "better-vae", Precision = Precision.Float32 },
                new ComponentSource { ComponentId = "text_encoder_3", Omitted = true },
            },
        }, "components[0].component_id"),
    };

    /// <summary>The names of all, for a theory.</summary>
    public static TheoryData<string> Names => [.. All.Keys];

    private static Generation Owl(Sampling sampling) => new() { Prompt = "an owl", Sampling = sampling };
}
