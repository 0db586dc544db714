// pair_rows: 32 rows each of two matrices in 64 rows of lib/tile: 0..31 are of the first, 32..63 of
// the second.

// Which row of its matrix a row of the tiles is.
fn pair_row(row: u32) -> u32 { return (row >> 6) * 32 + (row & 31); }
fn pair_is_first(row: u32) -> bool { return (row & 32) == 0; }
