/* dawn_open: finds Dawn's shared library and loads it at run time, so that the same program starts
 * on a machine without it; then the adapter and the device, with all their features and limits.
 *
 * Flow: gpu_dawn.c after, which makes the calls. */
#include "gpu/dawn.h"

#include <dlfcn.h>
#include <unistd.h>

/* ---- finding the library ------------------------------------------------------------------- */

static const char library_name[] = "libwebgpu_wrapper.so";

static void *load_from(const char *folder, const char *below) {
    char path[4096];
    int n = snprintf(path, sizeof path, "%s%s/%s", folder, below, library_name);
    return n > 0 && n < (int)sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static void *load_library(const char *library) {
    if (library) return dlopen(library, RTLD_NOW | RTLD_LOCAL);
    char self[4000];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    static const char *const below[] = {"", "/.deps", "/../.deps", "/../../.deps", "/../lib/carat"};
    for (size_t i = 0; slash && i < COUNT(below); i++) {
        void *lib = load_from(self, below[i]);
        if (lib) return lib;
    }
    void *lib = load_from("/usr/local/lib/carat", "");
    return lib ? lib : dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
}

/* The library stays loaded until the program ends: Dawn's threads may outlive a device. */
static bool load_procs(const char *library, procs *out, carat_error *err) {
    void *lib = load_library(library);
    if (!lib)
        return fail(err, CARAT_E_DEVICE, "gpu: cannot load Dawn (%s)",
                    library ? library : library_name);
    const char *missing = NULL;
#define X(name)                                                                                    \
    *(void **)&out->name = dlsym(lib, "wgpu" #name);                                               \
    if (!out->name && !missing) missing = "wgpu" #name;
    PROCS(X)
#undef X
    if (missing) return fail(err, CARAT_E_DEVICE, "gpu: Dawn's library lacks %s", missing);
    return true;
}

/* ---- opening ------------------------------------------------------------------------------- */

static const WGPUFeatureName wanted_features[] = {
    WGPUFeatureName_Subgroups, WGPUFeatureName_ShaderF16, WGPUFeatureName_TimestampQuery,
    WGPUFeatureName_ChromiumExperimentalSubgroupMatrix};

static void note_adapter(WGPURequestAdapterStatus status, WGPUAdapter a, WGPUStringView message,
                         void *out, void *unused) {
    (void)status, (void)message, (void)unused;
    *(WGPUAdapter *)out = a;
}

static bool request_adapter(dawn *d, bool fallback) {
    WGPURequestAdapterOptions options = {.featureLevel = WGPUFeatureLevel_Core,
                                         .powerPreference = WGPUPowerPreference_HighPerformance,
                                         .forceFallbackAdapter = fallback};
    dawn_await(d, d->wgpu.InstanceRequestAdapter(
                      d->instance, &options,
                      (WGPURequestAdapterCallbackInfo){.mode = WGPUCallbackMode_WaitAnyOnly,
                                                       .callback = note_adapter,
                                                       .userdata1 = &d->adapter}));
    return d->adapter != NULL;
}

typedef struct device_answer {
    WGPUDevice device;
    char message[256];
} device_answer;

static void note_device(WGPURequestDeviceStatus status, WGPUDevice device, WGPUStringView message,
                        void *out, void *unused) {
    (void)status, (void)unused;
    device_answer *answer = out;
    answer->device = device;
    snprintf(answer->message, sizeof answer->message, "%.*s", view_length(message), message.data);
}

static void note_lost(const WGPUDevice *device, WGPUDeviceLostReason reason, WGPUStringView message,
                      void *user, void *unused) {
    (void)device, (void)unused;
    dawn *d = user;
    d->base.lost = true;
    if (reason != WGPUDeviceLostReason_Destroyed)
        fail(&d->error, CARAT_E_DEVICE_LOST, "gpu: the device was lost: %.*s", view_length(message),
             message.data);
}

static void note_error(const WGPUDevice *device, WGPUErrorType type, WGPUStringView message,
                       void *user, void *unused) {
    (void)device, (void)unused;
    dawn *d = user;
    fail(&d->error, type == WGPUErrorType_OutOfMemory ? CARAT_E_MEMORY : CARAT_E_DEVICE,
         "gpu: %.*s", view_length(message), message.data);
}

static bool request_device(dawn *d, const WGPULimits *limits, carat_error *err) {
    WGPUFeatureName features[COUNT(wanted_features)];
    size_t n = 0;
    for (size_t i = 0; i < COUNT(wanted_features); i++)
        if (d->wgpu.AdapterHasFeature(d->adapter, wanted_features[i]))
            features[n++] = wanted_features[i];
    device_answer answer = {0};
    WGPUDeviceDescriptor desc = {
        .label = view_of("carat"),
        .requiredFeatureCount = n,
        .requiredFeatures = features,
        .requiredLimits = limits,
        .deviceLostCallbackInfo = {.mode = WGPUCallbackMode_AllowProcessEvents,
                                   .callback = note_lost,
                                   .userdata1 = d},
        .uncapturedErrorCallbackInfo = {.callback = note_error, .userdata1 = d}};
    dawn_await(d, d->wgpu.AdapterRequestDevice(
                      d->adapter, &desc,
                      (WGPURequestDeviceCallbackInfo){.mode = WGPUCallbackMode_WaitAnyOnly,
                                                      .callback = note_device,
                                                      .userdata1 = &answer}));
    d->device = answer.device;
    if (!d->device)
        return fail(err, CARAT_E_DEVICE, "gpu: %s gave no device: %s", d->base.info.name,
                    answer.message);
    d->queue = d->wgpu.DeviceGetQueue(d->device);
    return true;
}

static const char *backend_name(WGPUBackendType t) {
    switch (t) {
    case WGPUBackendType_D3D11:
        return "D3D11";
    case WGPUBackendType_D3D12:
        return "D3D12";
    case WGPUBackendType_Metal:
        return "Metal";
    case WGPUBackendType_Vulkan:
        return "Vulkan";
    case WGPUBackendType_OpenGL:
        return "OpenGL";
    case WGPUBackendType_OpenGLES:
        return "OpenGL ES";
    default:
        return "WebGPU";
    }
}

static void fill_info(dawn *d, const WGPULimits *limits) {
    gpu_info *info = &d->base.info;
    WGPUAdapterInfo a = {0};
    d->wgpu.AdapterGetInfo(d->adapter, &a);
    snprintf(info->name, sizeof info->name, "%.*s", view_length(a.device), a.device.data);
    snprintf(info->backend, sizeof info->backend, "%s", backend_name(a.backendType));
    info->software = a.adapterType == WGPUAdapterType_CPU;
    info->subgroup_min = a.subgroupMinSize;
    info->subgroup_max = a.subgroupMaxSize;
    d->wgpu.AdapterInfoFreeMembers(a);
    bool *have[COUNT(wanted_features)] = {&info->subgroups, &info->shader_f16, &info->timestamps,
                                          &info->subgroup_matrix};
    for (size_t i = 0; i < COUNT(wanted_features); i++)
        *have[i] = d->wgpu.AdapterHasFeature(d->adapter, wanted_features[i]);
    info->max_buffer = limits->maxBufferSize;
    info->max_binding = limits->maxStorageBufferBindingSize;
    info->max_storage_buffers = limits->maxStorageBuffersPerShaderStage;
    info->max_workgroup_bytes = limits->maxComputeWorkgroupStorageSize;
    info->max_invocations = limits->maxComputeInvocationsPerWorkgroup;
    info->max_groups = limits->maxComputeWorkgroupsPerDimension;
}

static bool open_instance(dawn *d, carat_error *err) {
    static const WGPUInstanceFeatureName features[] = {WGPUInstanceFeatureName_TimedWaitAny};
    static const char *const unsafe[] = {"allow_unsafe_apis"}; /* for the subgroup matrix */
    WGPUDawnTogglesDescriptor toggles = {.chain = {.sType = WGPUSType_DawnTogglesDescriptor},
                                         .enabledToggleCount = COUNT(unsafe),
                                         .enabledToggles = unsafe};
    d->instance =
        d->wgpu.CreateInstance(&(WGPUInstanceDescriptor){.nextInChain = &toggles.chain,
                                                         .requiredFeatureCount = COUNT(features),
                                                         .requiredFeatures = features});
    return d->instance || fail(err, CARAT_E_DEVICE, "gpu: Dawn could not start");
}

static bool open_device(dawn *d, carat_error *err) {
    if (!open_instance(d, err)) return false;
    if (!request_adapter(d, false) && !request_adapter(d, true))
        return fail(err, CARAT_E_DEVICE, "gpu: no adapter found (no GPU, or no driver for it)");
    WGPULimits limits = {0};
    if (d->wgpu.AdapterGetLimits(d->adapter, &limits) != WGPUStatus_Success)
        return fail(err, CARAT_E_DEVICE, "gpu: the adapter does not tell its limits");
    fill_info(d, &limits);
    return request_device(d, &limits, err);
}

gpu *gpu_dawn_open(const char *library, carat_error *err) {
    arena *memory = arena_create(err);
    if (!memory) return NULL;
    dawn *d = arena_alloc(memory, 1, sizeof *d);
    if (!d) {
        fail_memory(err, sizeof *d, "the device");
        arena_free(memory);
        return NULL;
    }
    d->base.api = &dawn_api;
    d->memory = d->buffers.memory = d->pipelines.memory = d->binds.memory = memory;
    if (!load_procs(library, &d->wgpu, err)) {
        arena_free(memory);
        return NULL;
    }
    if (open_device(d, err)) return &d->base;
    dawn_close(&d->base);
    return NULL;
}
