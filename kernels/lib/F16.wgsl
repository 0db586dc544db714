// F16 as it is: 8 values an element.

alias W$ = vec4<u32>;

fn raw16$(g: u32) -> Raw {
    return Raw(w$[2u * g], w$[2u * g + 1u], vec4<u32>(), vec4<u32>(), g);
}

fn expand16$(r: Raw) -> mat4x4<f32> {
    let a = r.a;
    let b = r.b;
    return mat4x4<f32>(vec4<f32>(halves(a.x), halves(a.y)), vec4<f32>(halves(a.z), halves(a.w)),
                       vec4<f32>(halves(b.x), halves(b.y)), vec4<f32>(halves(b.z), halves(b.w)));
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
