/* dawn_open: finds Dawn's shared library and loads it at run time, so that the same program starts
 * on a machine without it; then the adapter and the device, with all their features and limits.
 *
 * Two generations of Dawn are spoken: webgpu.h's, and the one before it (until summer 2025, the one
 * that tools/deps.sh brings), which differs in the numbers of features, in the description of an
 * instance and in the size of the limits. It is known by a function that went away.
 *
 * Flow: gpu_dawn.c after, which makes the calls. */
#include "gpu/dawn.h"

#include <dlfcn.h>
#include <unistd.h>

/* ---- finding the library ------------------------------------------------------------------- */

static const char own_library[] = "libwebgpu_wrapper.so";          /* as tools/deps.sh brings it */
static const char distributions_library[] = "libwebgpu_dawn.so.0"; /* newer, where there is one */

static void *load_from(const char *folder, const char *below) {
    char path[4096];
    int n = snprintf(path, sizeof path, "%s%s/%s", folder, below, own_library);
    return n > 0 && n < (int)sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static void *load_own(void) {
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
    return lib ? lib : dlopen(own_library, RTLD_NOW | RTLD_LOCAL);
}

/* The name of a function that the library lacks; NULL: it has all. */
static const char *take_procs(dawn *d, void *lib) {
    const char *missing = NULL;
#define X(name)                                                                                    \
    *(void **)&d->wgpu.name = dlsym(lib, "wgpu" #name);                                            \
    if (!d->wgpu.name && !missing) missing = "wgpu" #name;
    PROCS(X)
#undef X
    d->dawn_2025 = dlsym(lib, "wgpuGetInstanceCapabilities") != NULL;
    return missing;
}

/* The library stays loaded until the program ends: Dawn's threads may outlive a device. */
static bool load_procs(dawn *d, const char *library, carat_error *err) {
    void *lib = dlopen(library ? library : distributions_library, RTLD_NOW | RTLD_LOCAL);
    const char *missing = lib ? take_procs(d, lib) : NULL;
    if (!library && (!lib || missing)) {
        lib = load_own();
        missing = lib ? take_procs(d, lib) : NULL;
    }
    if (!lib)
        return fail(err, CARAT_E_DEVICE, "gpu: cannot load Dawn (%s)",
                    library ? library : own_library);
    if (missing) return fail(err, CARAT_E_DEVICE, "gpu: Dawn's library lacks %s", missing);
    return true;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* A feature's number in both generations of Dawn (0: not asked for there), and where gpu_info notes
 * it; two features that belong together are noted in one place. */
typedef struct feature {
    uint32_t now, in_2025;
    size_t at;
} feature;

static const feature features[] = {
    {WGPUFeatureName_Subgroups, 0x11, offsetof(gpu_info, subgroups)},
    {WGPUFeatureName_ShaderF16, 0, offsetof(gpu_info, subgroup_matrix)},
    {WGPUFeatureName_ChromiumExperimentalSubgroupMatrix, 0, offsetof(gpu_info, subgroup_matrix)},
};

static WGPUFeatureName feature_id(const dawn *d, const feature *f) {
    return (WGPUFeatureName)(d->dawn_2025 ? f->in_2025 : f->now);
}

static bool *noted(gpu_info *info, const feature *f) { return (bool *)((char *)info + f->at); }

/* What Dawn keeps back until it is asked by name: matrix units, whose WGSL may still change, and
 * f16 on NVIDIA's Vulkan, some corners of which fail WebGPU's own tests. The kernels that use them
 * are tested on them. A Dawn that does not know a name ignores it. */
static const char *const toggles[] = {"allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"};

static WGPUDawnTogglesDescriptor make_toggles(void) {
    return (WGPUDawnTogglesDescriptor){.chain = {.sType = WGPUSType_DawnTogglesDescriptor},
                                       .enabledToggleCount = COUNT(toggles),
                                       .enabledToggles = toggles};
}

/* Whether the matrix units multiply 16 x 16 f16 by 16 x 16 f16 into f32. */
static bool has_matrix(dawn *d) {
    WGPUAdapterPropertiesSubgroupMatrixConfigs found = {
        .chain = {.sType = WGPUSType_AdapterPropertiesSubgroupMatrixConfigs}};
    WGPUAdapterInfo a = {.nextInChain = &found.chain};
    bool has = false;
    if (d->dawn_2025 || d->wgpu.AdapterGetInfo(d->adapter, &a) != WGPUStatus_Success) return false;
    for (size_t i = 0; i < found.configCount; i++) {
        const WGPUSubgroupMatrixConfig *c = &found.configs[i];
        has |= c->componentType == WGPUSubgroupMatrixComponentType_F16 &&
               c->resultComponentType == WGPUSubgroupMatrixComponentType_F32 && c->M == 16 &&
               c->N == 16 && c->K == 16;
    }
    d->wgpu.AdapterPropertiesSubgroupMatrixConfigsFreeMembers(found);
    d->wgpu.AdapterInfoFreeMembers(a);
    return has;
}

/* The limits, with room for the fields that they once had at the end. */
typedef union limits {
    WGPULimits now;
    uint8_t room[sizeof(WGPULimits) + 64];
} limits;

static void note_adapter(WGPURequestAdapterStatus status, WGPUAdapter a, WGPUStringView message,
                         void *out, void *unused) {
    (void)status, (void)message, (void)unused;
    *(WGPUAdapter *)out = a;
}

static bool request_adapter(dawn *d, bool fallback) {
    WGPUDawnTogglesDescriptor asked = make_toggles();
    WGPURequestAdapterOptions options = {.nextInChain = d->dawn_2025 ? NULL : &asked.chain,
                                         .featureLevel = WGPUFeatureLevel_Core,
                                         .powerPreference = WGPUPowerPreference_HighPerformance,
                                         .forceFallbackAdapter = fallback};
    dawn_await(d, d->wgpu.InstanceRequestAdapter(
                      d->instance, &options,
                      (WGPURequestAdapterCallbackInfo){.mode = WGPUCallbackMode_WaitAnyOnly,
                                                       .callback = note_adapter,
                                                       .userdata1 = &d->adapter}));
    if (!d->adapter) return false;
    WGPUAdapterInfo info = {0};
    d->wgpu.AdapterGetInfo(d->adapter, &info);
    bool real = info.backendType != WGPUBackendType_Null; /* Dawn's last resort, for its tests */
    d->wgpu.AdapterInfoFreeMembers(info);
    if (!real) d->wgpu.AdapterRelease(d->adapter);
    if (!real) d->adapter = NULL;
    return real;
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

static bool request_device(dawn *d, const limits *all, carat_error *err) {
    WGPUFeatureName names[COUNT(features)];
    size_t n = 0;
    for (size_t i = 0; i < COUNT(features); i++)
        if (*noted(&d->base.info, &features[i])) names[n++] = feature_id(d, &features[i]);
    device_answer answer = {0};
    WGPUDeviceDescriptor desc = {
        .label = view_of("carat"),
        .requiredFeatureCount = n,
        .requiredFeatures = names,
        .requiredLimits = &all->now,
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

static void fill_info(dawn *d, const WGPULimits *most) {
    gpu_info *info = &d->base.info;
    WGPUAdapterInfo a = {0};
    d->wgpu.AdapterGetInfo(d->adapter, &a);
    snprintf(info->name, sizeof info->name, "%.*s", view_length(a.device), a.device.data);
    snprintf(info->backend, sizeof info->backend, "%s", backend_name(a.backendType));
    info->software = a.adapterType == WGPUAdapterType_CPU;
    info->subgroup_min = a.subgroupMinSize;
    info->subgroup_max = a.subgroupMaxSize;
    d->wgpu.AdapterInfoFreeMembers(a);
    for (size_t i = 0; i < COUNT(features); i++) *noted(info, &features[i]) = true;
    for (size_t i = 0; i < COUNT(features); i++)
        *noted(info, &features[i]) &=
            d->wgpu.AdapterHasFeature(d->adapter, feature_id(d, &features[i])) != 0;
    info->packed_dot = true; /* every Dawn has it */
    info->max_buffer = most->maxBufferSize;
    info->max_binding = most->maxStorageBufferBindingSize;
    info->max_storage_buffers = most->maxStorageBuffersPerShaderStage;
    info->max_workgroup_bytes = most->maxComputeWorkgroupStorageSize;
    info->max_invocations = most->maxComputeInvocationsPerWorkgroup;
    info->max_groups = most->maxComputeWorkgroupsPerDimension;
    /* As kernels/lib/tile.matrix.wgsl needs them. */
    info->subgroup_matrix &= info->subgroup_min == 32 && info->subgroup_max == 32 &&
                             info->max_workgroup_bytes >= 30720 && has_matrix(d);
}

/* WGPUInstanceDescriptor as it was in 2025. */
typedef struct instance_2025 {
    void *next;
    WGPUChainedStruct *capabilities_next;
    WGPUBool timed_wait_any;
    size_t timed_wait_any_most;
} instance_2025;

/* dawn::native::DawnInstanceDescriptor of 2025: a C++ struct, so its first own member is in the
 * padding of the base class. */
typedef struct dawn_instance_2025 {
    WGPUChainedStruct *next;
    WGPUSType type;
    uint32_t n_path;
    const char *const *paths;
    void *platform;
    uint32_t validation; /* 2: none */
    bool capture;
    WGPULoggingCallbackInfo logging;
} dawn_instance_2025;

static void drop_log(WGPULoggingType type, WGPUStringView message, void *user, void *unused) {
    (void)type, (void)message, (void)user, (void)unused;
}

/* Without drop_log, Dawn writes to stderr what it dislikes about the drivers that it finds. */
static bool open_instance(dawn *d, carat_error *err) {
    static const WGPUInstanceFeatureName wanted[] = {WGPUInstanceFeatureName_TimedWaitAny};
    WGPUDawnTogglesDescriptor asked = make_toggles();
    WGPUInstanceDescriptor now = {.nextInChain = &asked.chain,
                                  .requiredFeatureCount = COUNT(wanted),
                                  .requiredFeatures = wanted};
    dawn_instance_2025 quiet = {.type = WGPUSType_DawnInstanceDescriptor,
                                .validation = 2,
                                .logging = {.callback = drop_log}};
    instance_2025 old = {.next = &quiet, .timed_wait_any = true, .timed_wait_any_most = 8};
    d->instance = d->wgpu.CreateInstance(d->dawn_2025 ? (const void *)&old : (const void *)&now);
    return d->instance || fail(err, CARAT_E_DEVICE, "gpu: Dawn could not start");
}

static bool open_device(dawn *d, carat_error *err) {
    if (!open_instance(d, err)) return false;
    if (!request_adapter(d, false) && !request_adapter(d, true))
        return fail(err, CARAT_E_DEVICE, "gpu: no adapter found (no GPU, or no driver for it)");
    limits all = {0};
    if (d->wgpu.AdapterGetLimits(d->adapter, &all.now) != WGPUStatus_Success)
        return fail(err, CARAT_E_DEVICE, "gpu: the adapter does not tell its limits");
    fill_info(d, &all.now);
    return request_device(d, &all, err);
}

/* The WGSL of matrix units may still change, and so may the numbers by which Dawn was asked. */
static void try_matrix(dawn *d) {
    static const char wgsl[] =
        "enable f16;\n"
        "enable subgroups;\n"
        "enable chromium_experimental_subgroup_matrix;\n"
        "var<workgroup> a: array<vec2<u32>, 64>;\n"
        "@group(0) @binding(0) var<storage, read_write> out: array<f32, 256>;\n"
        "@compute @workgroup_size(32) fn main() {\n"
        "    let left = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&a, 0, "
        "4);\n"
        "    let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&a, 0, "
        "4);\n"
        "    var sum: subgroup_matrix_result<f32, 16, 16>;\n"
        "    sum = subgroupMatrixMultiplyAccumulate(left, right, sum);\n"
        "    subgroupMatrixStore<row_major>(&out, 0, sum, 16);\n"
        "}\n";
    gpu_info *info = &d->base.info;
    carat_error err = {0};
    if (!info->subgroup_matrix) return;
    const uint8_t bindings[] = {GPU_BIND_READ_WRITE};
    const gpu_pipeline p = gpu_pipeline_create(
        &d->base,
        &(gpu_pipeline_desc){
            .label = "matrix units", .wgsl = wgsl, .n_binding = 1, .bindings = bindings},
        &err);
    info->subgroup_matrix = p.id != 0;
    gpu_pipeline_free(&d->base, p);
    if (p.id)
        snprintf(info->backend + strlen(info->backend),
                 sizeof info->backend - strlen(info->backend), ", matrix units");
}

/* Whether Vulkan has a driver. Dawn finds out too, but tells stderr when there is none. The info
 * is a VkInstanceCreateInfo that asks for nothing; 1 is its structure type. */
static bool has_driver(void) {
    typedef int (*create_fn)(const void *info, const void *allocator, void **instance);
    typedef void (*destroy_fn)(void *instance, const void *allocator);
    const struct {
        int type;
        const void *next;
        uint32_t flags;
        const void *application;
        uint32_t n_layer;
        const char *const *layers;
        uint32_t n_extension;
        const char *const *extensions;
    } info = {.type = 1};
    void *vulkan = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!vulkan) return false;
    create_fn create = NULL;
    destroy_fn destroy = NULL;
    *(void **)&create = dlsym(vulkan, "vkCreateInstance");
    *(void **)&destroy = dlsym(vulkan, "vkDestroyInstance");
    void *instance = NULL;
    const bool found = create && destroy && create(&info, NULL, &instance) == 0;
    if (found) destroy(instance, NULL);
    return found;
}

gpu *gpu_dawn_open(const char *library, carat_error *err) {
    if (!has_driver()) {
        fail(err, CARAT_E_DEVICE, "gpu: Vulkan finds no driver");
        return NULL;
    }
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
    if (!load_procs(d, library, err)) {
        arena_free(memory);
        return NULL;
    }
    if (open_device(d, err)) {
        try_matrix(d);
        return &d->base;
    }
    dawn_close(&d->base);
    return NULL;
}

gpu *gpu_open(carat_error *err) { return gpu_dawn_open(NULL, err); }
