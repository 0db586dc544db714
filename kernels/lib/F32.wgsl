// F32 as it is.

alias W$ = vec4<f32>;

fn get16$(g: u32) -> mat4x4<f32> {
    let i = 4u * g;
    return mat4x4<f32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn group$(g: u32) -> Group {
    return Group(get16$(g), 1.0, 0.0);
}
