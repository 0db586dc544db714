/* The bandwidth kernel reads every word exactly once, and a device's bandwidth is a number. */
#include "kernel_test.h"

static void row(const kernel *k, uint32_t n, uint32_t n_group) {
    uint32_t *words = kt_take((size_t)n * 4, 4), sums[64] = {0}, got = 0, want = 0;
    for (uint32_t i = 0; i < n * 4; i++) want += words[i] = i * 2654435761u + 12345u;
    kt_output out = kt_out(n_group * 4);
    bandwidth_args args = {.n = n, .n_group = n_group};
    kt_run(&(kernel_call){.kernel = k,
                          .args = &args,
                          .views = {kt_in(words, (size_t)n * 16), out.view},
                          .x = n_group});
    kt_read(out, sums);
    for (uint32_t i = 0; i < n_group; i++) got += sums[i];
    assert_int_equal(got, want);
}

static void test_kernel(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {255, 1}, {256, 2}, {257, 3}, {4099, 7}, {31, 64}};
    for (const kernel *k = NULL; (k = kt_next(&kernel_bandwidth, k));)
        for (size_t i = 0; i < COUNT(shapes); i++) {
            row(k, shapes[i][0], shapes[i][1]);
            kt_reset();
        }
}

static void measure(const char *name, bool device_memory) {
    carat_error err = {0};
    carat_device *dev = carat_device_open(name, &err);
    kt_check(dev != NULL, &err);
    double bandwidth = carat_device_bandwidth(dev, &err);
    kt_check(bandwidth > 0, &err);
    print_message("%s: %.2f GB/s\n", carat_device_name(dev), bandwidth * 1e-9);
    assert_true(bandwidth < 1e14);
    assert_int_equal(carat_device_peak_bytes(dev) > 0, device_memory);
    carat_device_close(dev);
}

static void test_devices(void **state) {
    (void)state;
    measure("cpu", false);
    measure("gpu", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kernel),
                                       cmocka_unit_test(test_devices)};
    return cmocka_run_group_tests(tests, kt_setup, kt_teardown);
}
