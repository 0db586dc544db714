// sigmoid: 1 / (1 + exp(-x)). Below -80 it would be smaller than f32 can say.

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp(-max(x, vec4(-80.0))));
}
