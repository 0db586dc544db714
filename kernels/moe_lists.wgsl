// moe_lists: groups the selections (token, expert) by expert, so that each expert's tokens can be
// multiplied together. Selection i is ids[i], of token i / n_used.
//   order [n_pick]: selections, those of expert 0 first, each expert's in rising order;
//   tiles [n_tile]: what a row of workgroups works on: expert, first place in order, places (at
//   most TILE); unused tiles have no places.
// Grid: one workgroup; a thread an expert, n_expert <= 256. CPU twin: none, it sorts.

override TILE: u32 = 64;

struct Args { n_pick: u32, n_expert: u32, n_tile: u32 }
@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> tiles: array<vec4<u32>>;

var<workgroup> piece: array<u32, 1024>;
var<workgroup> counts: array<u32, 256>;
var<workgroup> places: array<u32, 256>; // where an expert's places and tiles begin
var<workgroup> starts: array<u32, 256>;

fn load_piece(base: u32, lid: u32) {
    workgroupBarrier();
    for (var i = lid; i < 1024; i += 256) { piece[i] = ids[min(base + i, args.n_pick - 1)]; }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    var count = 0u;
    for (var base = 0u; base < args.n_pick; base += 1024) {
        load_piece(base, lid);
        let n = min(1024u, args.n_pick - base);
        for (var i = 0u; i < n; i++) { count += u32(piece[i] == lid); }
    }
    counts[lid] = count;
    workgroupBarrier();
    if (lid == 0) {
        var place = 0u;
        var tile = 0u;
        for (var e = 0u; e < 256; e++) {
            places[e] = place;
            starts[e] = tile;
            place += counts[e];
            tile += (counts[e] + TILE - 1) / TILE;
        }
        for (; tile < args.n_tile; tile++) { tiles[tile] = vec4<u32>(); }
    }
    workgroupBarrier();
    var place = places[lid];
    for (var i = 0u; i * TILE < count; i++) {
        tiles[starts[lid] + i] = vec4(lid, place + i * TILE, min(TILE, count - i * TILE), 0u);
    }
    for (var base = 0u; base < args.n_pick; base += 1024) {
        load_piece(base, lid);
        let n = min(1024u, args.n_pick - base);
        for (var i = 0u; i < n; i++) {
            if (piece[i] == lid) {
                order[place] = base + i;
                place++;
            }
        }
    }
}
