/* gpu_dawn: gpu.h over Dawn, the WebGPU implementation of Chromium.
 *
 * Consecutive dispatches share one compute pass; Dawn puts the barriers between them. Dawn's bounds
 * checks in shaders (robustness) stay on: a wrong index then costs a wrong result, not the driver.
 * Dawn allocates for itself; what this file keeps lives in one arena.
 *
 * Flow: dawn_open.c before, Dawn after. */
#include "gpu/dawn.h"

/* ---- errors -------------------------------------------------------------------------------- */

/* Reports the first error since the last report, or that the device is lost. */
static bool healthy(dawn *d, carat_error *err) {
    if (d->error.code) {
        if (err && !err->code) *err = d->error;
        if (!d->base.lost) d->error = (carat_error){0}; /* a lost device keeps its message */
        return false;
    }
    if (d->base.lost) return fail(err, CARAT_E_DEVICE_LOST, "gpu: the device was lost");
    return true;
}

typedef struct scope_answer {
    WGPUErrorType type;
    char message[400];
} scope_answer;

static void note_scope(WGPUPopErrorScopeStatus status, WGPUErrorType type, WGPUStringView message,
                       void *out, void *unused) {
    (void)unused;
    scope_answer *answer = out;
    if (answer->type != WGPUErrorType_NoError) return; /* the first message wins */
    if (status != WGPUPopErrorScopeStatus_Success) type = WGPUErrorType_Unknown;
    answer->type = type;
    if (type != WGPUErrorType_NoError)
        snprintf(answer->message, sizeof answer->message, "%.*s", view_length(message),
                 message.data);
}

static const WGPUErrorFilter filters[] = {WGPUErrorFilter_Validation, WGPUErrorFilter_OutOfMemory,
                                          WGPUErrorFilter_Internal};

static void push_scopes(dawn *d) {
    for (size_t i = 0; i < COUNT(filters); i++) d->wgpu.DevicePushErrorScope(d->device, filters[i]);
}

static scope_answer pop_scopes(dawn *d) {
    scope_answer answer = {.type = WGPUErrorType_NoError};
    for (size_t i = 0; i < COUNT(filters); i++)
        dawn_await(
            d, d->wgpu.DevicePopErrorScope(
                   d->device, (WGPUPopErrorScopeCallbackInfo){.mode = WGPUCallbackMode_WaitAnyOnly,
                                                              .callback = note_scope,
                                                              .userdata1 = &answer}));
    return answer;
}

/* ---- buffers ------------------------------------------------------------------------------- */

static WGPUBuffer make_buffer(dawn *d, uint64_t size, WGPUBufferUsage usage, const char *label,
                              carat_error *err) {
    if (d->base.lost) {
        healthy(d, err);
        return NULL;
    }
    if (size > d->base.info.max_buffer) {
        fail(err, CARAT_E_MEMORY, "gpu: buffer %s: %llu bytes; the device allows %llu", label,
             (unsigned long long)size, (unsigned long long)d->base.info.max_buffer);
        return NULL;
    }
    push_scopes(d);
    WGPUBuffer b = d->wgpu.DeviceCreateBuffer(
        d->device, &(WGPUBufferDescriptor){.label = view_of(label), .usage = usage, .size = size});
    scope_answer answer = pop_scopes(d);
    if (b && answer.type == WGPUErrorType_NoError) return b;
    if (b) d->wgpu.BufferRelease(b);
    bool memory = !b || answer.type == WGPUErrorType_OutOfMemory;
    fail(err, memory ? CARAT_E_MEMORY : CARAT_E_DEVICE, "gpu: buffer %s: no %llu bytes: %s", label,
         (unsigned long long)size, answer.message);
    return NULL;
}

static gpu_buffer dawn_buffer_create(gpu *g, uint64_t size, gpu_usage usage, const char *label,
                                     carat_error *err) {
    dawn *d = (dawn *)g;
    gpu_buffer none = {0};
    size = round_up(size ? size : 4, 4);
    WGPUBufferUsage flags = WGPUBufferUsage_CopyDst;
    flags |= usage & GPU_STORAGE ? WGPUBufferUsage_Storage | WGPUBufferUsage_CopySrc : 0;
    flags |= usage & GPU_UNIFORM ? WGPUBufferUsage_Uniform : 0;
    WGPUBuffer b = make_buffer(d, size, flags, label, err);
    if (!b) return none;
    uint32_t id = handle_take(&d->buffers);
    if (!id) {
        d->wgpu.BufferRelease(b);
        fail_memory(err, sizeof(handle_slot), "a buffer's handle");
        return none;
    }
    handle_slot *s = handle_find(&d->buffers, id);
    s->object = b;
    s->size = size;
    gpu_stats *stats = &g->stats;
    stats->buffer_bytes += size;
    if (stats->buffer_bytes > stats->peak_buffer_bytes)
        stats->peak_buffer_bytes = stats->buffer_bytes;
    return (gpu_buffer){id};
}

static handle_slot *buffer_of(const dawn *d, gpu_buffer b) {
    handle_slot *s = handle_find(&d->buffers, b.id);
    assert(s && "a buffer that was freed, or never made");
    return s;
}

static void dawn_buffer_free(gpu *g, gpu_buffer b) {
    dawn *d = (dawn *)g;
    handle_slot *s = buffer_of(d, b);
    g->stats.buffer_bytes -= s->size;
    /* Dawn waits for submitted work that uses it; what is only recorded keeps it by reference. */
    if (!d->encoder) d->wgpu.BufferDestroy(s->object);
    d->wgpu.BufferRelease(s->object);
    handle_drop(&d->buffers, b.id);
}

static void dawn_write(gpu *g, gpu_buffer b, uint64_t offset, const void *data, size_t n) {
    dawn *d = (dawn *)g;
    assert(offset % 4 == 0 && n % 4 == 0 && offset + n <= buffer_of(d, b)->size);
    d->wgpu.QueueWriteBuffer(d->queue, buffer_of(d, b)->object, offset, data, n);
}

/* ---- pipelines and bind groups ------------------------------------------------------------- */

static WGPUBindGroupLayout make_layout(dawn *d, const gpu_pipeline_desc *desc) {
    static const WGPUBufferBindingType types[] = {
        [GPU_BIND_UNIFORM] = WGPUBufferBindingType_Uniform,
        [GPU_BIND_READ] = WGPUBufferBindingType_ReadOnlyStorage,
        [GPU_BIND_READ_WRITE] = WGPUBufferBindingType_Storage};
    WGPUBindGroupLayoutEntry entries[GPU_MAX_BINDINGS] = {0};
    for (uint32_t i = 0; i < desc->n_binding; i++) {
        entries[i].binding = i;
        entries[i].visibility = WGPUShaderStage_Compute;
        entries[i].buffer.type = types[desc->bindings[i]];
    }
    return d->wgpu.DeviceCreateBindGroupLayout(
        d->device, &(WGPUBindGroupLayoutDescriptor){.label = view_of(desc->label),
                                                    .entryCount = desc->n_binding,
                                                    .entries = entries});
}

static WGPUComputePipeline make_pipeline(dawn *d, const gpu_pipeline_desc *desc,
                                         WGPUBindGroupLayout layout) {
    WGPUShaderSourceWGSL source = {.chain = {.sType = WGPUSType_ShaderSourceWGSL},
                                   .code = view_of(desc->wgsl)};
    WGPUShaderModule module = d->wgpu.DeviceCreateShaderModule(
        d->device,
        &(WGPUShaderModuleDescriptor){.nextInChain = &source.chain, .label = view_of(desc->label)});
    WGPUPipelineLayout whole = d->wgpu.DeviceCreatePipelineLayout(
        d->device,
        &(WGPUPipelineLayoutDescriptor){.bindGroupLayoutCount = 1, .bindGroupLayouts = &layout});
    WGPUConstantEntry constants[16];
    assert(desc->n_constant <= COUNT(constants));
    for (uint32_t i = 0; i < desc->n_constant; i++)
        constants[i] = (WGPUConstantEntry){.key = view_of(desc->constants[i].name),
                                           .value = desc->constants[i].value};
    WGPUComputePipeline p = d->wgpu.DeviceCreateComputePipeline(
        d->device, &(WGPUComputePipelineDescriptor){.label = view_of(desc->label),
                                                    .layout = whole,
                                                    .compute = {.module = module,
                                                                .entryPoint = view_of("main"),
                                                                .constantCount = desc->n_constant,
                                                                .constants = constants}});
    d->wgpu.ShaderModuleRelease(module);
    d->wgpu.PipelineLayoutRelease(whole);
    return p;
}

static gpu_pipeline dawn_pipeline_create(gpu *g, const gpu_pipeline_desc *desc, carat_error *err) {
    dawn *d = (dawn *)g;
    gpu_pipeline none = {0};
    assert(desc->n_binding <= GPU_MAX_BINDINGS);
    if (d->base.lost) {
        healthy(d, err);
        return none;
    }
    push_scopes(d);
    WGPUBindGroupLayout layout = make_layout(d, desc);
    WGPUComputePipeline p = make_pipeline(d, desc, layout);
    scope_answer answer = pop_scopes(d);
    uint32_t id = answer.type == WGPUErrorType_NoError ? handle_take(&d->pipelines) : 0;
    if (!id) {
        d->wgpu.ComputePipelineRelease(p);
        d->wgpu.BindGroupLayoutRelease(layout);
        if (answer.type != WGPUErrorType_NoError)
            fail(err, CARAT_E_DEVICE, "gpu: kernel %s: %s", desc->label, answer.message);
        fail_memory(err, sizeof(handle_slot), "a pipeline's handle");
        return none;
    }
    handle_slot *s = handle_find(&d->pipelines, id);
    s->object = p;
    s->extra = layout;
    g->stats.n_pipeline++;
    return (gpu_pipeline){id};
}

static void dawn_pipeline_free(gpu *g, gpu_pipeline p) {
    dawn *d = (dawn *)g;
    handle_slot *s = handle_find(&d->pipelines, p.id);
    assert(s && "a pipeline that was freed, or never made");
    d->wgpu.ComputePipelineRelease(s->object);
    d->wgpu.BindGroupLayoutRelease(s->extra);
    handle_drop(&d->pipelines, p.id);
}

static gpu_bind dawn_bind_create(gpu *g, gpu_pipeline p, const gpu_view *views, uint32_t n,
                                 carat_error *err) {
    dawn *d = (dawn *)g;
    gpu_bind none = {0};
    handle_slot *pipeline = handle_find(&d->pipelines, p.id);
    assert(pipeline && n <= GPU_MAX_BINDINGS);
    if (d->base.lost) {
        healthy(d, err);
        return none;
    }
    WGPUBindGroupEntry entries[GPU_MAX_BINDINGS] = {0};
    for (uint32_t i = 0; i < n; i++) {
        entries[i].binding = i;
        entries[i].buffer = buffer_of(d, views[i].buffer)->object;
        entries[i].offset = views[i].offset;
        entries[i].size = views[i].size ? views[i].size : WGPU_WHOLE_SIZE;
    }
    push_scopes(d);
    WGPUBindGroup b = d->wgpu.DeviceCreateBindGroup(
        d->device,
        &(WGPUBindGroupDescriptor){.layout = pipeline->extra, .entryCount = n, .entries = entries});
    scope_answer answer = pop_scopes(d);
    uint32_t id = answer.type == WGPUErrorType_NoError ? handle_take(&d->binds) : 0;
    if (!id) {
        d->wgpu.BindGroupRelease(b);
        if (answer.type != WGPUErrorType_NoError)
            fail(err, CARAT_E_DEVICE, "gpu: bind group: %s", answer.message);
        fail_memory(err, sizeof(handle_slot), "a bind group's handle");
        return none;
    }
    handle_find(&d->binds, id)->object = b;
    g->stats.n_bind++;
    return (gpu_bind){id};
}

static void dawn_bind_free(gpu *g, gpu_bind b) {
    dawn *d = (dawn *)g;
    handle_slot *s = handle_find(&d->binds, b.id);
    assert(s && "a bind group that was freed, or never made");
    d->wgpu.BindGroupRelease(s->object);
    handle_drop(&d->binds, b.id);
}

/* ---- recording ----------------------------------------------------------------------------- */

static void open_encoder(dawn *d) {
    if (!d->encoder) d->encoder = d->wgpu.DeviceCreateCommandEncoder(d->device, NULL);
}

static void end_pass(dawn *d) {
    if (!d->pass) return;
    d->wgpu.ComputePassEncoderEnd(d->pass);
    d->wgpu.ComputePassEncoderRelease(d->pass);
    d->pass = NULL;
    d->pass_pipeline = 0;
}

static void dawn_dispatch(gpu *g, gpu_pipeline p, gpu_bind b, uint32_t x, uint32_t y, uint32_t z) {
    dawn *d = (dawn *)g;
    handle_slot *pipeline = handle_find(&d->pipelines, p.id), *bind = handle_find(&d->binds, b.id);
    assert(pipeline && bind);
    open_encoder(d);
    if (!d->pass) d->pass = d->wgpu.CommandEncoderBeginComputePass(d->encoder, NULL);
    if (d->pass_pipeline != p.id) d->wgpu.ComputePassEncoderSetPipeline(d->pass, pipeline->object);
    d->pass_pipeline = p.id;
    d->wgpu.ComputePassEncoderSetBindGroup(d->pass, 0, bind->object, 0, NULL);
    d->wgpu.ComputePassEncoderDispatchWorkgroups(d->pass, x, y, z);
    g->stats.n_dispatch++;
}

static void dawn_copy(gpu *g, gpu_buffer dst, uint64_t dst_offset, gpu_buffer src,
                      uint64_t src_offset, uint64_t n) {
    dawn *d = (dawn *)g;
    open_encoder(d);
    end_pass(d);
    d->wgpu.CommandEncoderCopyBufferToBuffer(d->encoder, buffer_of(d, src)->object, src_offset,
                                             buffer_of(d, dst)->object, dst_offset, n);
}

static void note_done(WGPUQueueWorkDoneStatus status, WGPUStringView message, void *user,
                      void *unused) {
    (void)status, (void)message, (void)unused;
    ((dawn *)user)->n_finished++; /* they end in order */
}

/* Hands over what is recorded; also without commands, which flushes the writes. */
static void flush(dawn *d) {
    end_pass(d);
    WGPUCommandBuffer commands = NULL;
    if (d->encoder) {
        commands = d->wgpu.CommandEncoderFinish(d->encoder, NULL);
        d->wgpu.CommandEncoderRelease(d->encoder);
        d->encoder = NULL;
    }
    d->wgpu.QueueSubmit(d->queue, commands ? 1 : 0, &commands);
    if (commands) d->wgpu.CommandBufferRelease(commands);
    d->base.stats.n_submit++;
}

static void dawn_wait(gpu *g);

static bool dawn_submit(gpu *g, carat_error *err) {
    dawn *d = (dawn *)g;
    flush(d);
    if (!healthy(d, err)) return false;
    while (d->n_started - d->n_finished == MAX_SUBMITS && !d->base.lost) dawn_wait(g);
    d->submits[d->n_started++ % MAX_SUBMITS] = d->wgpu.QueueOnSubmittedWorkDone(
        d->queue, (WGPUQueueWorkDoneCallbackInfo){.mode = WGPUCallbackMode_AllowProcessEvents,
                                                  .callback = note_done,
                                                  .userdata1 = d});
    return healthy(d, err);
}

/* ---- reading back and waiting --------------------------------------------------------------- */

static void note_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *user,
                        void *unused) {
    (void)message, (void)unused;
    ((reading *)user)->state = status == WGPUMapAsyncStatus_Success ? READ_MAPPED : READ_BROKEN;
}

static void drop_staging(dawn *d, reading *r) {
    if (r->staging) d->wgpu.BufferRelease(r->staging);
    if (r->staging) d->base.stats.buffer_bytes -= r->capacity;
    r->staging = NULL;
    r->capacity = 0;
}

/* A free place, best one whose staging buffer fits already. */
static reading *find_reading(dawn *d, uint64_t n) {
    reading *best = NULL;
    for (uint32_t i = 0; i < MAX_READS; i++) {
        reading *r = &d->reads[i];
        if (r->state != READ_FREE) continue;
        bool fits = r->capacity >= n, best_fits = best && best->capacity >= n;
        if (!best || (fits && (!best_fits || r->capacity < best->capacity)) ||
            (!fits && !best_fits && r->capacity < best->capacity))
            best = r;
    }
    return best;
}

static bool grow_staging(dawn *d, reading *r, uint64_t n, carat_error *err) {
    if (r->capacity >= n) return true;
    drop_staging(d, r);
    uint64_t capacity = round_up(n, 4096);
    r->staging = make_buffer(d, capacity, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst,
                             "read back", err);
    if (!r->staging) return false;
    r->capacity = capacity;
    d->base.stats.buffer_bytes += capacity;
    if (d->base.stats.buffer_bytes > d->base.stats.peak_buffer_bytes)
        d->base.stats.peak_buffer_bytes = d->base.stats.buffer_bytes;
    return true;
}

static gpu_ticket dawn_read(gpu *g, gpu_buffer b, uint64_t offset, size_t n, carat_error *err) {
    dawn *d = (dawn *)g;
    gpu_ticket none = {0};
    handle_slot *s = buffer_of(d, b);
    uint64_t copied = round_up(n, 4);
    assert(n > 0 && offset % 4 == 0 && offset + copied <= s->size);
    reading *r = find_reading(d, copied);
    if (!r) {
        fail(err, CARAT_E_DEVICE, "gpu: more than %d reads at a time", MAX_READS);
        return none;
    }
    if (!grow_staging(d, r, copied, err)) return none;
    open_encoder(d);
    end_pass(d);
    d->wgpu.CommandEncoderCopyBufferToBuffer(d->encoder, s->object, offset, r->staging, 0, copied);
    flush(d);
    if (!healthy(d, err)) return none;
    r->n = n;
    r->state = READ_MAPPING;
    r->future = d->wgpu.BufferMapAsync(
        r->staging, WGPUMapMode_Read, 0, (size_t)copied,
        (WGPUBufferMapCallbackInfo){
            .mode = WGPUCallbackMode_AllowProcessEvents, .callback = note_mapped, .userdata1 = r});
    r->generation = (r->generation + 1) & 0xffffff;
    return (gpu_ticket){(r->generation << 8 | (uint32_t)(r - d->reads)) + 1};
}

static gpu_poll_result dawn_poll(gpu *g, gpu_ticket t, void *dst, carat_error *err) {
    dawn *d = (dawn *)g;
    uint32_t i = (t.id - 1) & 0xff;
    assert(t.id && i < MAX_READS && d->reads[i].generation == (t.id - 1) >> 8);
    reading *r = &d->reads[i];
    assert(r->state != READ_FREE);
    if (r->state == READ_MAPPING) d->wgpu.InstanceProcessEvents(d->instance);
    if (r->state == READ_MAPPING && !d->base.lost) return GPU_PENDING;
    const void *data = NULL;
    if (r->state == READ_MAPPED)
        data = d->wgpu.BufferGetConstMappedRange(r->staging, 0, (size_t)round_up(r->n, 4));
    if (data) memcpy(dst, data, r->n);
    d->wgpu.BufferUnmap(r->staging);
    if (r->state == READ_MAPPING) d->wgpu.InstanceProcessEvents(d->instance); /* its callback */
    r->state = READ_FREE;
    if (!data || r->capacity > KEEP_STAGING) drop_staging(d, r);
    if (!data) {
        healthy(d, err);
        fail(err, CARAT_E_DEVICE, "gpu: a result could not be read back");
        return GPU_FAILED;
    }
    return healthy(d, err) ? GPU_READY : GPU_FAILED;
}

static uint32_t reads_under_way(const dawn *d) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < MAX_READS; i++) n += d->reads[i].state == READ_MAPPING;
    return n;
}

static uint32_t dawn_pending(gpu *g) {
    dawn *d = (dawn *)g;
    d->wgpu.InstanceProcessEvents(d->instance);
    return (uint32_t)(d->n_started - d->n_finished) + reads_under_way(d);
}

static bool wait_for(dawn *d, WGPUFuture future, double seconds) {
    WGPUFutureWaitInfo info = {.future = future};
    const uint64_t ns = (uint64_t)(seconds * 1e9);
    return d->wgpu.InstanceWaitAny(d->instance, 1, &info, ns) == WGPUWaitStatus_Success;
}

/* A thread that sleeps until a token is there takes 0.1 ms longer for the next one. So, where reads
 * come soon, it sleeps for half of what the last one took, and then looks again and again. False:
 * it is not there yet. */
static bool wait_awake(dawn *d, WGPUFuture future) {
    const double begin = seconds_now(), expected = d->last_wait;
    if (d->base.info.software || expected > SHORT_WAIT) return false;
    bool done = wait_for(d, future, 0.5 * expected);
    while (!done && seconds_now() - begin < 2 * expected) done = wait_for(d, future, 0);
    return done;
}

static void dawn_wait(gpu *g) {
    dawn *d = (dawn *)g;
    if (d->base.lost) return;
    const WGPUFuture *future = NULL;
    for (uint32_t i = 0; i < MAX_READS; i++)
        if (d->reads[i].state == READ_MAPPING && (!future || d->reads[i].future.id < future->id))
            future = &d->reads[i].future;
    const bool reads = future != NULL;
    if (!reads && d->n_started > d->n_finished) future = &d->submits[d->n_finished % MAX_SUBMITS];
    if (!future) return;
    const double seconds = g->info.software ? HANG_SECONDS_CPU : HANG_SECONDS;
    const double begin = seconds_now();
    const bool done = (reads && wait_awake(d, *future)) || wait_for(d, *future, seconds);
    if (reads) d->last_wait = seconds_now() - begin;
    if (done) return;
    d->base.lost = true;
    fail(&d->error, CARAT_E_DEVICE_LOST, "gpu: the device has not answered for %.0f seconds",
         seconds);
}

/* ---- closing ------------------------------------------------------------------------------- */

static void close_objects(dawn *d) {
    for (uint32_t i = 0; i < MAX_READS; i++) drop_staging(d, &d->reads[i]);
    for (uint32_t i = 0; i < d->binds.n; i++) {
        handle_slot *s = handle_at(&d->binds, i);
        if (s) d->wgpu.BindGroupRelease(s->object);
    }
    for (uint32_t i = 0; i < d->pipelines.n; i++) {
        handle_slot *s = handle_at(&d->pipelines, i);
        if (!s) continue;
        d->wgpu.ComputePipelineRelease(s->object);
        d->wgpu.BindGroupLayoutRelease(s->extra);
    }
    for (uint32_t i = 0; i < d->buffers.n; i++) {
        handle_slot *s = handle_at(&d->buffers, i);
        if (s) d->wgpu.BufferRelease(s->object);
    }
}

void dawn_close(gpu *g) {
    dawn *d = (dawn *)g;
    end_pass(d);
    if (d->encoder) d->wgpu.CommandEncoderRelease(d->encoder);
    if (d->device) d->wgpu.DeviceDestroy(d->device); /* ends maps and work; calls back */
    if (d->instance) d->wgpu.InstanceProcessEvents(d->instance);
    close_objects(d);
    if (d->queue) d->wgpu.QueueRelease(d->queue);
    if (d->device) d->wgpu.DeviceRelease(d->device);
    if (d->adapter) d->wgpu.AdapterRelease(d->adapter);
    if (d->instance) d->wgpu.InstanceRelease(d->instance);
    arena_free(d->memory);
}

const gpu_api dawn_api = {
    .close = dawn_close,
    .buffer_create = dawn_buffer_create,
    .buffer_free = dawn_buffer_free,
    .write = dawn_write,
    .pipeline_create = dawn_pipeline_create,
    .pipeline_free = dawn_pipeline_free,
    .bind_create = dawn_bind_create,
    .bind_free = dawn_bind_free,
    .dispatch = dawn_dispatch,
    .copy = dawn_copy,
    .submit = dawn_submit,
    .read = dawn_read,
    .poll = dawn_poll,
    .pending = dawn_pending,
    .wait = dawn_wait,
};
