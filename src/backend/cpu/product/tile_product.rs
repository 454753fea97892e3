//! What the products of tile registers are given.

/// Rows of a tile, of weights, of sums and of groups of activations.
pub(crate) const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile: 16 sums or groups.
pub(crate) const TILE_BYTES: usize = 64;
/// How many tiles ahead of its use a tile of a stream is asked for. (Sapphire Rapids: 4 and 16 are slower.)
pub(crate) const AHEAD_STEPS: usize = 8;

/// Products of tiles: of some streams of weights, each 16 rows that are walked along, with some vectors of activations,
/// each 16 rows whose groups lie side by side.
///
/// Addresses and strides are in bytes.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct TileProduct {
    /// Each stream's first tile: 16 rows of `steps` times 64 bytes.
    pub weights: [*const u8; 2],
    pub weights_stride: usize,
    /// From where a stream is read to what of it is asked for meanwhile: rows `ahead_stride` apart.
    pub ahead: [isize; 2],
    pub ahead_stride: usize,
    /// What is added to `ahead` when [`AHEAD_STEPS`] steps are left.
    pub ahead_turn: isize,
    /// `16 * steps` rows, one for each group, of 64 bytes a vector.
    pub activations: *const u8,
    pub activations_stride: usize,
    /// Tiles of a stream, at least one.
    pub steps: usize,
    /// Of each stream, 16 rows of 16 sums a vector: these are added to if `accumulate` is not 0.
    pub sums: [*mut f32; 2],
    pub sums_stride: usize,
    pub accumulate: usize,
}
