// tile_lines: lines of f32 for lib/tile, whose terms they are: args.n_tok of them. Needs the
// bindings lines: array<f32> and lines4: array<vec4<f32>>, the same buffer twice, since vec4 are
// faster where the lines begin at multiples of four.

// Values i .. i + 3 of four lines, a column each, of the n values that begin at `first` in a line,
// which are `stride` apart. Repeats the last line and the last value beyond the end.
fn load_lines(line: u32, i: u32, first: u32, stride: u32, n: u32) -> mat4x4<f32> {
    let at = min(vec4(line) + vec4(0u, 1u, 2u, 3u), vec4(args.n_tok - 1)) * stride + first;
    if (((first | stride) & 3) == 0) {
        let j = at / 4 + min(i, n - 1) / 4;
        return mat4x4<f32>(lines4[j.x], lines4[j.y], lines4[j.z], lines4[j.w]);
    }
    let k = min(vec4(i) + vec4(0u, 1u, 2u, 3u), vec4(n - 1));
    return mat4x4<f32>(line4(at.x + k), line4(at.y + k), line4(at.z + k), line4(at.w + k));
}

fn line4(i: vec4<u32>) -> vec4<f32> { return vec4(lines[i.x], lines[i.y], lines[i.z], lines[i.w]); }
