using DeviceOps.Api.Common.V1;
using DeviceOps.Api.Inference.V1;
using DeviceOps.Api.Memory.V1;
using DeviceOps.Api.Postprocessing.V1;
using DeviceOps.Api.Processing.V1;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Xunit;

namespace DeviceOps.Contract.Tests;

/// <summary>Batches, workflows, postprocessing and safety, asked for as an application would. The server does not build them yet.</summary>
public sealed class PlatformRequests
{
    /// <summary>One template, three items: another prompt; fewer steps, and a negative prompt back to none; the template as it is.</summary>
    public static Batch ThreeFruits() => new()
    {
        Template = new WorkSpec
        {
            Generation = new Generation
            {
                Prompt = "a red apple",
                NegativePrompt = "text, watermark",
                Sampling = new Sampling { Steps = 20, Seed = 7 },
            },
        },
        Items =
        {
            new BatchItem
            {
                Id = "pear",
                Work = new WorkSpec { Generation = new Generation { Prompt = "a green pear" } },
                OverrideMask = new FieldMask { Paths = { "generation.prompt" } },
            },
            new BatchItem
            {
                Id = "sketch",
                Work = new WorkSpec { Generation = new Generation { Sampling = new Sampling { Steps = 4 } } },
                OverrideMask = new FieldMask { Paths = { "generation.sampling.steps", "generation.negative_prompt" } },
                Priority = Priority.High,
            },
            new BatchItem { Id = "apple" },
        },
        Fuse = true,
        ErrorPolicy = BatchErrorPolicy.Continue,
        AbortFailureRatio = 0.5,
        Retry = new StepRetryPolicy { MaxAttempts = 3 },
    };

    /// <summary>Items for a batch of thousands: the content of the blob that <c>ItemsBlobId</c> names.</summary>
    public static byte[] ItemsForABlob(IEnumerable<string> prompts)
    {
        using var content = new MemoryStream();
        foreach (var prompt in prompts)
        {
            var item = new BatchItem
            {
                Work = new WorkSpec { Generation = new Generation { Prompt = prompt } },
                OverrideMask = new FieldMask { Paths = { "generation.prompt" } },
            };
            item.WriteDelimitedTo(content);
        }
        return content.ToArray();
    }

    /// <summary>Generate, upscale, check: the second step runs once for each picture of the first, the third for each of the second.</summary>
    public static Workflow PortraitUpscaled() => new()
    {
        Id = "portrait-upscaled.v2",
        DisplayName = "Portrait, upscaled and checked",
        Parameters =
        {
            new WorkflowParameter { Name = "prompt", Kind = WorkflowValueKind.Text },
            new WorkflowParameter { Name = "count", Kind = WorkflowValueKind.Integer, MayBeAbsent = true, Minimum = 1, Maximum = 16 },
            new WorkflowParameter
            {
                Name = "policy",
                Kind = WorkflowValueKind.Text,
                DefaultValues = { new WorkflowValue { Text = "family" } },
            },
        },
        Steps =
        {
            new WorkflowStep
            {
                Id = "draw",
                Work = new WorkSpec { Generation = new Generation { ImageCount = 4 } },
                Bindings = { Bind("work.generation.prompt", "prompt"), Bind("work.generation.image_count", "count") },
                Devices = new DeviceSelector { Strategy = PlacementStrategy.MostFreeMemory },
                Priority = Priority.High,
            },
            new WorkflowStep
            {
                Id = "enlarge",
                Work = Do(new PostprocessingStep { Upscale = new UpscaleStep { Factor = 2 } }),
                Bindings = { Bind("work.postprocessing.inputs[*].image", "draw", "images[*].file") },
                Fallback = new FallbackPolicy { AllowOtherDevice = true },
                Retry = new StepRetryPolicy { MaxAttempts = 2 },
            },
            new WorkflowStep
            {
                Id = "check",
                Work = Do(new PostprocessingStep { Safety = new SafetyStep() }),
                Bindings =
                {
                    Bind("work.postprocessing.inputs[*].image", "enlarge", "images[*].file"),
                    Bind("work.postprocessing.steps[0].safety.policy_id", "policy"),
                },
                RunTimeout = Duration.FromTimeSpan(TimeSpan.FromMinutes(5)),
            },
        },
        Outputs =
        {
            new WorkflowOutput { Name = "pictures", Source = new StepOutput { StepId = "check", Path = "images[*].file" } },
        },
    };

    /// <summary>A run of the flagship workflow, with one argument.</summary>
    public static SubmitJobRequest RunPortrait() => new()
    {
        Spec = new JobSpec
        {
            WorkflowRun = new WorkflowRun
            {
                WorkflowId = "portrait-upscaled.v2",
                Arguments =
                {
                    new WorkflowArgument { Parameter = "prompt", Values = { new WorkflowValue { Text = "an old fisherman" } } },
                },
            },
        },
        RequestId = Guid.NewGuid().ToString("N"),
    };

    /// <summary>A batch as a step: one picture for each prompt of a list.</summary>
    public static Workflow OneForEachPrompt() => new()
    {
        Parameters = { new WorkflowParameter { Name = "prompts", Kind = WorkflowValueKind.Text, TakesList = true } },
        Steps =
        {
            new WorkflowStep
            {
                Id = "draw",
                Batch = new Batch { Template = new WorkSpec { Generation = new Generation() }, Fuse = true },
                Bindings = { Bind("batch.items[*].work.generation.prompt", "prompts") },
            },
        },
        Outputs = { new WorkflowOutput { Name = "pictures", Source = new StepOutput { StepId = "draw", Path = "images[*].file" } } },
    };

    /// <summary>A photo for a web page: upright, cut, mended, twice as large, lighter, checked, and a WebP of it.</summary>
    public static PostprocessRequest PhotoForTheWeb(string blobId) => new()
    {
        Postprocessing = new Postprocessing
        {
            Inputs = { new PostprocessingInput { Id = "cover", Image = new ImageInput { BlobId = blobId } } },
            Steps =
            {
                new PostprocessingStep { Rotate = new RotateStep { Degrees = 90 } },
                new PostprocessingStep
                {
                    Crop = new CropStep { Box = new PixelBox { LeftPx = 64, TopPx = 0, WidthPx = 1024, HeightPx = 1024 } },
                },
                new PostprocessingStep
                {
                    RestoreFaces = new RestoreFacesStep
                    {
                        FidelityRatio = 0.7,
                        Faces = new DetectorOptions { MinConfidenceRatio = 0.6, MaxCount = 1 },
                    },
                    OnError = StepErrorAction.Skip,
                },
                new PostprocessingStep
                {
                    Upscale = new UpscaleStep { Factor = 2, BackProjection = true },
                    OnError = StepErrorAction.Classical,
                },
                new PostprocessingStep { Adjust = new AdjustStep { ExposureStops = 0.3, Clarity = 0.1 } },
                new PostprocessingStep { Detect = new DetectStep { Detector = new DetectorOptions { Label = "person" } } },
                new PostprocessingStep { Safety = new SafetyStep { PolicyId = "family" } },
                new PostprocessingStep { Encode = new EncodeStep { Output = new EncodeOptions { MediaType = "image/webp", Quality = 85 } } },
            },
            MeasureQuality = true,
        },
        Options = new JobOptions { Priority = Priority.High },
        RequestId = Guid.NewGuid().ToString("N"),
    };

    /// <summary>A policy for all pictures: the worst is discarded, the doubtful is kept three days for a person, the rest is marked.</summary>
    public static CreateSafetyPolicyRequest Family() => new()
    {
        Policy = new SafetyPolicy
        {
            Id = "family",
            Thresholds =
            {
                new SafetyThreshold { Category = "Porn", ThresholdRatio = 0.8 },
                new SafetyThreshold { Category = "Porn", ThresholdRatio = 0.4, Action = SafetyAction.Review },
                new SafetyThreshold { Category = "Sexy", ThresholdRatio = 0.6, Action = SafetyAction.Flag },
            },
            Action = SafetyAction.Block,
            OnClassifierFailure = SafetyAction.Review,
            AppliesTo = { SafetyScope.Generation, SafetyScope.Postprocessing },
            KeepWithheldFor = Duration.FromTimeSpan(TimeSpan.FromDays(3)),
        },
        RequestId = Guid.NewGuid().ToString("N"),
    };

    /// <summary>What a reviewer's page asks: the queue of one policy, a view of a picture, and one of two decisions.</summary>
    public static (ListWithheldImagesRequest Queue, GetWithheldImageRequest View, ReleaseWithheldImageRequest Release, DeleteWithheldImageRequest Delete)
        Review(WithheldImage image) =>
        (
            new ListWithheldImagesRequest { PageSize = 50, Filter = new WithheldImageFilter { PolicyId = "family", Unchecked = false } },
            new GetWithheldImageRequest { WithheldImageId = image.Id, ViewEdgePx = 512 },
            new ReleaseWithheldImageRequest
            {
                WithheldImageId = image.Id,
                Cause = "a statue in a museum",
                RequestId = $"release-{image.Id}",
            },
            new DeleteWithheldImageRequest { WithheldImageId = image.Id, Cause = "as the policy says" }
        );

    /// <summary>Whether a picture may be shown, and how: the strictest of all verdicts; an action of a newer server counts as withheld.</summary>
    public static string Show(ProcessedImage image) => image.SafetyVerdicts.Select(verdict => verdict.Action).DefaultIfEmpty().Max() switch
    {
        SafetyAction.Unspecified when image.SafetyVerdicts.Count == 0 => "not checked",
        SafetyAction.Allow => "checked",
        SafetyAction.Flag or SafetyAction.Blur => "marked",
        _ when image.File is not null && image.SafetyVerdicts.All(verdict => verdict.Release is not null) => "released",
        _ => "withheld",
    };

    [Fact]
    public void ItemsOfABlobAreReadBackOneByOne()
    {
        using var content = new MemoryStream(ItemsForABlob(["a cat", new string('x', 200)]));
        Assert.Equal("a cat", BatchItem.Parser.ParseDelimitedFrom(content).Work.Generation.Prompt);
        Assert.Equal(200, BatchItem.Parser.ParseDelimitedFrom(content).Work.Generation.Prompt.Length);
        Assert.Equal(content.Length, content.Position);
    }

    [Fact]
    public void MasksNameFieldsOfTheWork()
    {
        Assert.All(ThreeFruits().Items, item => Assert.All(
            item.OverrideMask?.Paths ?? [], path => Assert.True(FieldMask.IsValid(WorkSpec.Descriptor, path), path)));
        Assert.False(FieldMask.IsValid(WorkSpec.Descriptor, "generation.promt"));
    }

    [Fact]
    public void RequestsSurviveTheWire()
    {
        IMessage[] requests =
        [
            new JobSpec { Batch = ThreeFruits() },
            new RegisterWorkflowRequest { Workflow = PortraitUpscaled() },
            RunPortrait(),
            new WorkflowRun { Workflow = OneForEachPrompt() },
            PhotoForTheWeb("blob"),
            Family(),
        ];
        Assert.All(requests, request => Assert.Equal(request, request.Descriptor.Parser.ParseFrom(request.ToByteArray())));
    }

    [Fact]
    public void TheStrictestVerdictDecides()
    {
        SafetyVerdict Verdict(SafetyAction action) => new() { PolicyId = action.ToString(), Action = action };
        ProcessedImage Image(params SafetyAction[] actions) => new() { SafetyVerdicts = { actions.Select(Verdict) } };

        Assert.Equal("not checked", Show(Image()));
        Assert.Equal("checked", Show(Image(SafetyAction.Allow, SafetyAction.Allow)));
        Assert.Equal("marked", Show(Image(SafetyAction.Allow, SafetyAction.Flag)));
        Assert.Equal("withheld", Show(Image(SafetyAction.Allow, SafetyAction.Block)));
        Assert.Equal("withheld", Show(Image((SafetyAction)99)));
        Assert.Equal("withheld", Show(Image(SafetyAction.Unspecified)));
    }

    private static WorkSpec Do(params PostprocessingStep[] steps) =>
        new() { Postprocessing = new Postprocessing { Steps = { steps } } };

    private static WorkflowBinding Bind(string target, string parameter) => new() { Target = target, Parameter = parameter };

    private static WorkflowBinding Bind(string target, string step, string path) =>
        new() { Target = target, StepOutput = new StepOutput { StepId = step, Path = path } };
}
