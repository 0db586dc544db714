/* gpu_record: the device of the kernel tests, which can be recorded and played back, so that the
 * same tests judge the same kernels in a browser.
 *
 *     KT_RECORD=DIR   runs on Dawn, and writes every call to DIR/PROGRAM-N.calls
 *     KT_REPLAY=DIR   has no device: what is read comes from DIR/PROGRAM-N.results, which
 *                     tests/browser/kernels.test.mjs has made of the calls
 *     neither         Dawn, as it is
 *
 * N counts the devices that the program opens. A file is a sequence of records: an opcode, the
 * number of its 32-bit words, the number of its bytes, then words and bytes (padded to 4). */
#ifndef CARAT_GPU_RECORD_H
#define CARAT_GPU_RECORD_H

#include "gpu/gpu.h"

typedef enum record_op {
    RECORD_DEVICE,   /* bytes: gpu_info */
    RECORD_BUFFER,   /* id, size, usage */
    RECORD_FREE,     /* id */
    RECORD_WRITE,    /* id, offset; bytes */
    RECORD_PIPELINE, /* id, the kinds of its bindings; bytes: JSON {label, wgsl, constants} */
    RECORD_BIND,     /* id, pipeline, (buffer, offset, size) of each binding */
    RECORD_DISPATCH, /* pipeline, bind, x, y, z */
    RECORD_COPY,     /* buffer, offset, from buffer, offset, bytes */
    RECORD_SUBMIT,
    RECORD_READ, /* id, offset, bytes */
} record_op;

gpu *record_open(carat_error *err);

#endif
