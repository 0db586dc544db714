// gelu: the tanh approximation. The argument is clamped: tanh(15) is 1 in f32 already, and some
// drivers' tanh overflows for large arguments.

fn gelu(x: f32) -> f32 {
    let t = 0.7978845608028654 * x * (1.0 + 0.044715 * x * x);
    return 0.5 * x * (1.0 + tanh(clamp(t, -15.0, 15.0)));
}
