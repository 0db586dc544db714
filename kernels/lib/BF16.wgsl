// BF16 as it is: 8 values an element, each the upper half of an f32.

alias W$ = vec4<u32>;

fn four$(a: u32, b: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}

fn raw16$(g: u32) -> Raw {
    return Raw(w$[2u * g], w$[2u * g + 1u], vec4<u32>(), vec4<u32>(), g);
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    let a = r.a;
    let b = r.b;
    return mat4x4<f32>(four$(a.x, a.y), four$(a.z, a.w), four$(b.x, b.y), four$(b.z, b.w));
}

fn get16$(g: u32) -> mat4x4<f32> {
    return expand16$(raw16$(g));
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
