//! Which WGSL kernels run an MLP: a function of shape, capabilities and the caller's wishes alone.

use crate::backend::wgpu::{
    CooperativeMatrices, MlpKernel, Reduction, WgpuCapabilities, WgpuDispatch,
};

/// The kernels for a batch and their constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// `gate_up_gemv` and `down_gemv`, for `tokens` tokens a workgroup.
    Gemv { tokens: u32, gate_up_threads: u32, down_threads: u32 },
    /// `prepare` if `n` is not `x`, `gate_up_tile` and `down_tile`.
    Tile(Tile),
    /// As [`Strategy::Tile`], by `gate_up_matrices` and `down_matrices`.
    Matrices(MatrixTile),
}

/// A tile of `4 * threads_m` tokens by `4 * threads_n` weight rows, `depth` elements deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub threads_m: u32,
    pub threads_n: u32,
    pub depth: u32,
}

/// A tile of `subgroups_m` by `subgroups_n` subgroups, each of two by two matrices, `depth` elements deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatrixTile {
    pub matrices: CooperativeMatrices,
    pub subgroups_m: u32,
    pub subgroups_n: u32,
    pub depth: u32,
}

impl MatrixTile {
    /// Tokens and rows of weights.
    pub fn extents(&self) -> [u32; 2] {
        [self.subgroups_m, self.subgroups_n].map(|subgroups| 2 * self.matrices.size * subgroups)
    }

    /// Of the first half, which has two products.
    fn workgroup_bytes(&self) -> u32 {
        const HALF: u32 = 2;
        const FLOAT: u32 = 4;
        let [tokens, rows] = self.extents();
        let sums = self.subgroups_m * self.subgroups_n * self.matrices.size.pow(2);
        self.depth * (tokens + 2 * rows) * HALF + 2 * sums * FLOAT
    }

    fn fits(&self, capabilities: &WgpuCapabilities) -> bool {
        let subgroups = self.subgroups_m * self.subgroups_n;
        subgroups * self.matrices.subgroup <= capabilities.invocations
            && self.workgroup_bytes() <= capabilities.workgroup_bytes
    }
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub rows: usize,
    /// Columns of the first product.
    pub inputs: usize,
    /// Columns of the second product.
    pub depth: usize,
    /// Neurons under masks or a threshold, which only the tiles know.
    pub selects: bool,
    /// Activations and weights in f16.
    pub halves: bool,
    pub batch_invariant: bool,
}

/// The most tokens that one workgroup of the GEMV kernels takes.
const GEMV_TOKENS: u32 = 8;
/// Up to here `batch_invariant` promises that a row's result does not depend on the batch.
const INVARIANT_ROWS: usize = 64;

pub(crate) fn strategy(
    shape: Shape,
    capabilities: &WgpuCapabilities,
    dispatch: &WgpuDispatch,
) -> Strategy {
    let invariant = shape.batch_invariant && shape.rows <= INVARIANT_ROWS;
    let kernel = dispatch.mlp.unwrap_or({
        if invariant || shape.rows <= GEMV_TOKENS as usize {
            MlpKernel::Gemv
        } else {
            MlpKernel::Matrices
        }
    });
    match kernel {
        MlpKernel::Gemv if !shape.selects => Strategy::Gemv {
            tokens: tokens(shape.rows, invariant),
            gate_up_threads: threads(shape.inputs, capabilities),
            down_threads: threads(shape.depth, capabilities),
        },
        _ => {
            let takes_matrices = shape.halves && kernel != MlpKernel::Tile;
            match matrix_tile(capabilities).filter(|_| takes_matrices) {
                Some(tile) => Strategy::Matrices(tile),
                // One tile whatever the batch: the order of a sum does not depend on it, but compilers may
                // contract a product and a sum in one pipeline and not in another.
                None if invariant => Strategy::Tile(tile(INVARIANT_ROWS, capabilities)),
                None => Strategy::Tile(tile(shape.rows, capabilities)),
            }
        }
    }
}

/// How sums over a workgroup are made.
pub(crate) fn reduction(capabilities: &WgpuCapabilities, dispatch: &WgpuDispatch) -> Reduction {
    match dispatch.reduction {
        Some(reduction) => reduction,
        None if capabilities.subgroups => Reduction::Subgroup,
        None => Reduction::Workgroup,
    }
}

/// Invocations for one pass over a row of `columns` elements, eight at a time: no more than have work.
pub(crate) fn threads(columns: usize, capabilities: &WgpuCapabilities) -> u32 {
    const FEWEST: u32 = 32;
    const MOST: u32 = 128;
    // A barrier of a software device switches between invocations one by one.
    let most = if capabilities.cpu { FEWEST } else { MOST.min(capabilities.invocations) };
    let vectors = u32::try_from(columns.div_ceil(8)).unwrap_or(MOST);
    vectors.min(most).next_power_of_two().clamp(FEWEST.min(most), most)
}

/// Tokens a workgroup: few values, so that few pipelines serve all batches. Rows that are not there cost
/// arithmetic, which a kernel that waits for its weights has to spare.
fn tokens(rows: usize, invariant: bool) -> u32 {
    match rows {
        _ if invariant => GEMV_TOKENS,
        0..=1 => 1,
        2..=4 => 4,
        _ => GEMV_TOKENS,
    }
}

/// The largest tile of the table that the device takes and the batch fills.
fn tile(rows: usize, capabilities: &WgpuCapabilities) -> Tile {
    const SMALL: Tile = Tile { threads_m: 8, threads_n: 8, depth: 8 };
    const WIDE: Tile = Tile { threads_m: 8, threads_n: 16, depth: 16 };
    const LARGE: Tile = Tile { threads_m: 16, threads_n: 16, depth: 16 };
    let fits = |tile: Tile| {
        let bytes = tile.depth * (tile.threads_m + 2 * tile.threads_n) * 16;
        tile.threads_m * tile.threads_n <= capabilities.invocations
            && bytes <= capabilities.workgroup_bytes
    };
    let by_worth: &[Tile] = match () {
        () if capabilities.cpu => &[SMALL],
        () if rows <= 32 => &[WIDE, SMALL],
        () => &[LARGE, WIDE, SMALL],
    };
    by_worth.iter().copied().find(|&tile| fits(tile)).unwrap_or(SMALL)
}

/// The tile of the device's cooperative matrices, whatever the batch; `None` where it has none or too little room.
fn matrix_tile(capabilities: &WgpuCapabilities) -> Option<MatrixTile> {
    let matrices = capabilities.matrices?;
    // 64 by 64 of the largest matrices. A patch of smaller ones is smaller: more subgroups make up for it, except on a
    // software device.
    let [subgroups_m, subgroups_n] = match (matrices.size, matrices.subgroup) {
        (8, 32) => [2, 4],
        _ => [2, 2],
    };
    let tile = |depth| MatrixTile { matrices, subgroups_m, subgroups_n, depth };
    [tile(32), tile(16)].into_iter().find(|tile| tile.fits(capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: WgpuCapabilities = WgpuCapabilities {
        subgroups: true,
        matrices: None,
        cpu: false,
        workgroup_bytes: 16_384,
        invocations: 256,
        workgroups_per_dimension: 65_535,
        storage_buffers: 8,
        storage_binding_bytes: 128 << 20,
        storage_offset_alignment: 256,
        uniform_offset_alignment: 256,
    };

    fn choose(rows: usize, batch_invariant: bool, dispatch: WgpuDispatch) -> Strategy {
        strategy(
            Shape {
                rows,
                inputs: 4096,
                depth: 11_008,
                selects: false,
                halves: true,
                batch_invariant,
            },
            &GPU,
            &dispatch,
        )
    }

    fn gemv(tokens: u32) -> Strategy {
        Strategy::Gemv { tokens, gate_up_threads: 128, down_threads: 128 }
    }

    #[test]
    fn few_rows_take_the_gemv() {
        let choose = |rows| choose(rows, false, WgpuDispatch::default());
        for (rows, tokens) in [(1, 1), (2, 4), (4, 4), (5, 8), (8, 8)] {
            assert_eq!(choose(rows), gemv(tokens));
        }
        assert_eq!(choose(9), Strategy::Tile(Tile { threads_m: 8, threads_n: 16, depth: 16 }));
        assert_eq!(choose(512), Strategy::Tile(Tile { threads_m: 16, threads_n: 16, depth: 16 }));
    }

    #[test]
    fn one_strategy_serves_every_invariant_batch() {
        for rows in 1..=64 {
            assert_eq!(choose(rows, true, WgpuDispatch::default()), gemv(8));
            let tile = WgpuDispatch { mlp: Some(MlpKernel::Tile), ..Default::default() };
            assert_eq!(choose(rows, true, tile), choose(64, true, tile));
        }
        assert!(matches!(choose(65, true, WgpuDispatch::default()), Strategy::Tile(_)));
    }

    #[test]
    fn the_caller_has_the_last_word() {
        let dispatch = |mlp| WgpuDispatch { mlp: Some(mlp), ..Default::default() };
        assert!(matches!(choose(1, false, dispatch(MlpKernel::Tile)), Strategy::Tile(_)));
        assert_eq!(choose(512, false, dispatch(MlpKernel::Gemv)), gemv(8));
        let forced =
            WgpuDispatch { reduction: Some(Reduction::Workgroup), ..WgpuDispatch::default() };
        assert_eq!(reduction(&GPU, &forced), Reduction::Workgroup);
        assert_eq!(reduction(&GPU, &WgpuDispatch::default()), Reduction::Subgroup);
    }

    /// A device with these matrices.
    fn with_matrices(size: u32, subgroup: u32) -> WgpuCapabilities {
        WgpuCapabilities { matrices: Some(CooperativeMatrices { size, subgroup }), ..GPU }
    }

    #[test]
    fn many_rows_of_halves_take_matrices_where_there_are_some() {
        let device = with_matrices(8, 32);
        let shape = Shape {
            rows: 9,
            inputs: 64,
            depth: 64,
            selects: false,
            halves: true,
            batch_invariant: false,
        };
        let default = WgpuDispatch::default();
        let choose = |shape, dispatch: &WgpuDispatch| strategy(shape, &device, dispatch);
        let expected = Strategy::Matrices(matrix_tile(&device).unwrap());
        assert_eq!(choose(shape, &default), expected);
        assert_eq!(choose(Shape { rows: 4096, ..shape }, &default), expected);
        assert_eq!(choose(Shape { rows: 1, selects: true, ..shape }, &default), expected);
        let few = choose(Shape { rows: 8, ..shape }, &default);
        assert!(matches!(few, Strategy::Gemv { .. }));
        let wider = choose(Shape { halves: false, ..shape }, &default);
        assert!(matches!(wider, Strategy::Tile(_)));
        let invariant = Shape { batch_invariant: true, ..shape };
        assert!(matches!(choose(invariant, &default), Strategy::Gemv { .. }));
        assert_eq!(choose(Shape { rows: 65, ..invariant }, &default), expected);

        let forced = |mlp| WgpuDispatch { mlp: Some(mlp), ..default };
        assert!(matches!(choose(shape, &forced(MlpKernel::Tile)), Strategy::Tile(_)));
        let one = Shape { rows: 1, ..shape };
        assert_eq!(choose(one, &forced(MlpKernel::Matrices)), expected);
        let without = strategy(one, &GPU, &forced(MlpKernel::Matrices));
        assert!(matches!(without, Strategy::Tile(_)));
    }

    #[test]
    fn matrices_fit_the_device() {
        let tile = |size, subgroup, change: fn(&mut WgpuCapabilities)| {
            let mut device = with_matrices(size, subgroup);
            change(&mut device);
            matrix_tile(&device).map(|tile| (tile.extents(), tile.depth))
        };
        assert_eq!(tile(16, 32, |_| ()), Some(([64, 64], 16)));
        assert_eq!(tile(16, 32, |device| device.workgroup_bytes = 32_768), Some(([64, 64], 32)));
        assert_eq!(tile(8, 32, |_| ()), Some(([32, 64], 32)));
        assert_eq!(tile(8, 8, |_| ()), Some(([32, 32], 32)));
        assert_eq!(tile(8, 32, |device| device.invocations = 128), None);
        assert_eq!(tile(16, 32, |device| device.workgroup_bytes = 8_192), None);
    }

    #[test]
    fn workgroup_bytes_of_matrices_are_those_of_the_shader() {
        use crate::backend::wgpu::registry::gate_up_matrices::{
            Constants, SCALAR_8_8, SCALAR_8_32, SCALAR_16_32,
        };
        for (size, subgroup, shader) in
            [(8, 8, &SCALAR_8_8), (8, 32, &SCALAR_8_32), (16, 32, &SCALAR_16_32)]
        {
            let tile = matrix_tile(&with_matrices(size, subgroup)).unwrap();
            let MatrixTile { subgroups_m, subgroups_n, depth, .. } = tile;
            let constants = Constants { subgroups_m, subgroups_n, depth, gated: true };
            let bytes = (shader.workgroup_bytes)(&constants.values());
            assert_eq!(bytes, u64::from(tile.workgroup_bytes()), "{}", shader.name);
        }
    }

    #[test]
    fn invocations_follow_the_row() {
        for (columns, expected) in [(1, 32), (256, 32), (264, 64), (576, 128), (14_336, 128)] {
            assert_eq!(threads(columns, &GPU), expected);
        }
        let weak = WgpuCapabilities { invocations: 64, ..GPU };
        assert_eq!(threads(4096, &weak), 64);
    }

    #[test]
    fn tiles_fit_the_device() {
        let weak = WgpuCapabilities { invocations: 128, ..GPU };
        assert_eq!(tile(512, &weak), Tile { threads_m: 8, threads_n: 16, depth: 16 });
        let weaker = WgpuCapabilities { workgroup_bytes: 8_192, ..GPU };
        assert_eq!(tile(512, &weaker), Tile { threads_m: 8, threads_n: 8, depth: 8 });
    }
}
