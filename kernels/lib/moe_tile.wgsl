// moe_tile: which selections of moe_lists a workgroup takes, as places of a tile of lib/tile. Needs
// the bindings order and tiles, and args with expert0 and n_expert: the experts of this binding.

var<private> tile: vec4<u32>; // expert, first place in order, how many
var<private> rows: vec4<u32>; // where the four places that a thread brings begin in the input

// Whether there is something to do in tile i. Below expert0 the difference wraps to a huge number.
fn moe_open(i: u32) -> bool {
    let t = tiles[i];
    tile = t;
    return t.z != 0 && t.x - args.expert0 < args.n_expert;
}

// Where a place's row of n values begins, in vec4; n_share selections share one. Repeats the last
// place beyond the end.
fn moe_row(place: u32, n_share: u32, n: u32) -> u32 {
    return order[tile.y + min(place, tile.z - 1)] / n_share * (n / 4);
}

fn moe_find_rows(id: u32, n_share: u32, n: u32) {
    let p = tile_in_tok(id, vec2(0));
    rows = vec4(moe_row(p, n_share, n), moe_row(p + 1, n_share, n), moe_row(p + 2, n_share, n),
                moe_row(p + 3, n_share, n));
}
