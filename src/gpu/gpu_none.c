/* gpu_none: stands in for gpu_dawn.c in a build without Dawn's header. There is no GPU then;
 * engine.c falls back to the CPU.
 *
 * Flow: gpu.h before, model/engine.c after. */
#include "gpu/gpu.h"

gpu *gpu_dawn_open(const char *library, carat_error *err) {
    (void)library;
    fail(err, CARAT_E_DEVICE, "gpu: this carat was built without Dawn, so it has no GPU support");
    return NULL;
}

gpu *gpu_open(carat_error *err) { return gpu_dawn_open(NULL, err); }
