// F32 as it is.

alias W$ = vec4<f32>;

fn get16$(g: u32) -> mat4x4<f32> {
    let i = 4u * g;
    return mat4x4<f32>(w$[i], w$[i + 1u], w$[i + 2u], w$[i + 3u]);
}

fn raw16$(g: u32) -> Raw {
    return hold(get16$(g));
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    return held(r);
}

fn group$(g: u32) -> Group {
    return Group(get16$(g), 1.0, 0.0);
}

fn dot64$(c: u32, x: Input64) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 4u; i++) {
        sum += dot_plain(get16$(4u * c + i), plain16(x, i));
    }
    return sum;
}

fn groups64$(c: u32) -> vec2<u32> {
    return vec2<u32>(4u * c, 4u * c + 2u);
}
