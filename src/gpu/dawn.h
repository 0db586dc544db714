/* dawn: what gpu_dawn.c (calls) and dawn_open.c (library, adapter, device) share.
 *
 * Flow: gpu.h before, Dawn after. Included by these two files alone. */
#ifndef CARAT_DAWN_H
#define CARAT_DAWN_H

#include "gpu/gpu.h"
#include "gpu/handle.h"

#include <stdio.h>
#include <string.h>
#include <webgpu.h>

#define PROCS(X)                                                                                   \
    X(CreateInstance)                                                                              \
    X(InstanceRequestAdapter)                                                                      \
    X(InstanceProcessEvents)                                                                       \
    X(InstanceWaitAny)                                                                             \
    X(InstanceRelease)                                                                             \
    X(AdapterRequestDevice)                                                                        \
    X(AdapterGetInfo)                                                                              \
    X(AdapterInfoFreeMembers)                                                                      \
    X(AdapterPropertiesSubgroupMatrixConfigsFreeMembers)                                           \
    X(AdapterGetLimits)                                                                            \
    X(AdapterHasFeature)                                                                           \
    X(AdapterRelease)                                                                              \
    X(DeviceGetQueue)                                                                              \
    X(DeviceCreateBuffer)                                                                          \
    X(DeviceCreateShaderModule)                                                                    \
    X(DeviceCreateBindGroupLayout)                                                                 \
    X(DeviceCreatePipelineLayout)                                                                  \
    X(DeviceCreateComputePipeline)                                                                 \
    X(DeviceCreateBindGroup)                                                                       \
    X(DeviceCreateCommandEncoder)                                                                  \
    X(DevicePushErrorScope)                                                                        \
    X(DevicePopErrorScope)                                                                         \
    X(DeviceDestroy)                                                                               \
    X(DeviceRelease)                                                                               \
    X(QueueSubmit)                                                                                 \
    X(QueueWriteBuffer)                                                                            \
    X(QueueOnSubmittedWorkDone)                                                                    \
    X(QueueRelease)                                                                                \
    X(BufferMapAsync)                                                                              \
    X(BufferGetConstMappedRange)                                                                   \
    X(BufferUnmap)                                                                                 \
    X(BufferDestroy)                                                                               \
    X(BufferRelease)                                                                               \
    X(ShaderModuleRelease)                                                                         \
    X(BindGroupLayoutRelease)                                                                      \
    X(PipelineLayoutRelease)                                                                       \
    X(ComputePipelineRelease)                                                                      \
    X(BindGroupRelease)                                                                            \
    X(CommandEncoderBeginComputePass)                                                              \
    X(CommandEncoderCopyBufferToBuffer)                                                            \
    X(CommandEncoderFinish)                                                                        \
    X(CommandEncoderRelease)                                                                       \
    X(CommandBufferRelease)                                                                        \
    X(ComputePassEncoderSetPipeline)                                                               \
    X(ComputePassEncoderSetBindGroup)                                                              \
    X(ComputePassEncoderDispatchWorkgroups)                                                        \
    X(ComputePassEncoderEnd)                                                                       \
    X(ComputePassEncoderRelease)

typedef struct procs {
#define X(name) WGPUProc##name name;
    PROCS(X)
#undef X
} procs;

#define MAX_READS        16         /* reads under way at a time */
#define MAX_SUBMITS      256        /* submits under way whose end we wait for */
#define KEEP_STAGING     (8u << 20) /* a staging buffer larger than this is not kept */
#define HANG_SECONDS     30         /* a device that is silent for so long is lost */
#define HANG_SECONDS_CPU 600
#define SHORT_WAIT       0.02 /* seconds, for a read */

typedef enum read_state { READ_FREE, READ_MAPPING, READ_MAPPED, READ_BROKEN } read_state;

typedef struct reading {
    WGPUBuffer staging; /* kept while free */
    uint64_t capacity;
    size_t n;
    WGPUFuture future;
    read_state state;
    uint32_t generation;
} reading;

typedef struct dawn {
    gpu base;
    arena *memory;
    procs wgpu;
    bool dawn_2025; /* the library is older than webgpu.h, see dawn_open.c */
    WGPUInstance instance;
    WGPUAdapter adapter;
    WGPUDevice device;
    WGPUQueue queue;
    WGPUCommandEncoder encoder;  /* NULL: nothing recorded */
    WGPUComputePassEncoder pass; /* NULL: none open */
    uint32_t pass_pipeline;      /* id set in the pass */
    handle_table buffers, pipelines, binds;
    reading reads[MAX_READS];
    WGPUFuture submits[MAX_SUBMITS]; /* ring, oldest at n_finished % MAX_SUBMITS */
    uint64_t n_started, n_finished;
    double last_wait;  /* for a read, seconds */
    carat_error error; /* the first one that no call has reported yet */
} dawn;

static inline WGPUStringView view_of(const char *s) { return (WGPUStringView){s, strlen(s)}; }

static inline int view_length(WGPUStringView s) {
    size_t n = !s.data ? 0 : s.length == WGPU_STRLEN ? strlen(s.data) : s.length;
    return n > 400 ? 400 : (int)n;
}

extern const gpu_api dawn_api; /* gpu_dawn.c */
void dawn_close(gpu *g);       /* also what was opened only in part */

static inline bool dawn_await(dawn *d, WGPUFuture f) {
    WGPUFutureWaitInfo info = {.future = f};
    return d->wgpu.InstanceWaitAny(d->instance, 1, &info, UINT64_MAX) == WGPUWaitStatus_Success;
}

#endif
