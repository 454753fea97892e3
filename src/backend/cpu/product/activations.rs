//! Rows of activations, made ready for weights that are streamed past them.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer")]

use super::TILE_ROWS;
use super::stream_panels::Batches;
use super::tiles::Packing;
use crate::backend::cpu::instructions::{MAX_LANES, Vectors};
use crate::backend::cpu::packed_weight::PANEL_ROWS;
use crate::backend::cpu::parallel::Shared;
use crate::backend::cpu::products::Products;
use crate::dtype::Float;

/// Elements of the longest vector.
pub(super) const MAX_STEP: usize = 32;

/// Elements between rows of activations of so many columns: a line more than whole vectors need, since rows that are a
/// power of two apart fall on few sets of the cache.
pub(crate) const fn row_stride(columns: usize) -> usize {
    columns.next_multiple_of(MAX_STEP) + MAX_STEP
}

/// Of [`Arrangement::Batches`], as [`Arrangement::sums_stride`]: a line more than whole panels need, since powers of two
/// would fall on few sets of the cache.
pub(crate) const fn batches_sums_stride(weight_rows: usize) -> usize {
    weight_rows.next_multiple_of(PANEL_ROWS) + PANEL_ROWS
}

/// How rows of activations lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// [`row_stride`] apart, each followed by zeros up to the next.
    Rows { rows: usize, columns: usize, stride: usize },
    /// Side by side, for the registers that hold tiles.
    Tiles(Packing),
    /// Side by side in batches, for packed weights.
    Batches { batches: Batches, columns: usize },
}

impl Arrangement {
    pub const fn rows(rows: usize, columns: usize) -> Arrangement {
        Arrangement::Rows { rows, columns, stride: row_stride(columns) }
    }

    /// Tiles, or rows where there are no registers for tiles.
    pub fn tiles<V: Vectors, P: Products<V>>(p: P, rows: usize, columns: usize) -> Arrangement {
        match p.has_tiles() {
            true => Arrangement::Tiles(Packing::new::<V, P>(p, rows, columns)),
            false => Arrangement::rows(rows, columns),
        }
    }

    /// Batches of as many rows as meet a panel of packed weights at once.
    pub fn batches<V: Vectors>(rows: usize, columns: usize) -> Arrangement {
        Arrangement::Batches { batches: Batches::new::<V>(rows), columns }
    }

    /// Operands of [`Arrangement::Tiles`].
    pub fn tile_operands(rows: usize, columns: usize) -> usize {
        rows.next_multiple_of(TILE_ROWS) * columns.next_multiple_of(MAX_STEP)
    }

    /// Operands in all, padding included.
    pub fn operands(&self) -> usize {
        match self {
            Arrangement::Rows { rows, stride, .. } => rows * stride,
            Arrangement::Tiles(packing) => packing.operands(),
            Arrangement::Batches { batches, columns } => batches.rows() * columns,
        }
    }

    /// Elements from the sums of one row, with so many rows of weights, to the next row's.
    pub fn sums_stride(&self, weight_rows: usize) -> usize {
        match self {
            Arrangement::Batches { .. } => batches_sums_stride(weight_rows),
            Arrangement::Rows { .. } | Arrangement::Tiles(_) => weight_rows,
        }
    }

    pub fn count(&self) -> usize {
        match self {
            Arrangement::Rows { rows, .. } => *rows,
            Arrangement::Batches { batches, .. } => batches.rows(),
            Arrangement::Tiles(packing) => packing.rows(),
        }
    }

    pub fn columns(&self) -> usize {
        match self {
            Arrangement::Rows { columns, .. } | Arrangement::Batches { columns, .. } => *columns,
            Arrangement::Tiles(packing) => packing.columns(),
        }
    }
}

/// Activations to be written, by several threads, each its own.
pub(crate) struct ActivationsMut<'a, T> {
    data: Shared<'a, T>,
    arrangement: Arrangement,
}

// By hand, since `derive` would ask for elements that can be copied.
impl<T> Clone for ActivationsMut<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ActivationsMut<'_, T> {}

impl<'a, T: Float> ActivationsMut<'a, T> {
    pub fn new(data: &'a mut [T], arrangement: Arrangement) -> ActivationsMut<'a, T> {
        assert!(data.len() >= arrangement.operands(), "too little room for activations");
        ActivationsMut { data: Shared::new(data), arrangement }
    }

    /// As [`Arrangement::sums_stride`].
    pub fn sums_stride(&self, weight_rows: usize) -> usize {
        self.arrangement.sums_stride(weight_rows)
    }

    /// Stores the columns from `column`, a multiple of the lanes, on: a vector, or what is left of the row and
    /// zeros as far as kernels read them.
    ///
    /// # Safety
    /// Nobody else uses these columns of the row at the same time.
    #[inline(always)]
    pub unsafe fn store<V: Vectors>(&self, v: V, vector: V::Vector, row: usize, column: usize) {
        let columns = self.arrangement.columns();
        let is_last = column + V::LANES >= columns;
        let mut lanes = [T::zeroed(); MAX_LANES];
        match self.arrangement {
            Arrangement::Rows { stride, .. } => {
                let end = if is_last { stride } else { column + V::LANES };
                // SAFETY: the caller's promise.
                let to = unsafe { self.data.slice(row * stride + column..row * stride + end) };
                if !is_last {
                    return v.store_slice(vector, to);
                }
                v.store_slice(vector, &mut lanes[..V::LANES]);
                let count = columns - column;
                to[..count].copy_from_slice(&lanes[..count]);
                to[count..].fill(T::zeroed());
            }
            Arrangement::Tiles(packing) => {
                v.store_slice(vector, &mut lanes[..V::LANES]);
                let end = if is_last { packing.padded_columns() } else { column + V::LANES };
                lanes[columns.saturating_sub(column).min(MAX_LANES)..].fill(T::zeroed());
                let (place, stride) = (packing.place(row, column), packing.group_stride(row));
                for pair in 0..(end - column) / 2 {
                    let values = lanes.get(2 * pair..2 * pair + 2);
                    let place = place + pair * stride;
                    // SAFETY: the caller's promise.
                    let to = unsafe { self.data.slice(place..place + 2) };
                    to.copy_from_slice(values.unwrap_or(&[T::zeroed(); 2]));
                }
            }
            Arrangement::Batches { batches, columns } => {
                let batch = batches.of(row);
                let (width, place) = (batch.len(), batch.start * columns + row - batch.start);
                v.store_slice(vector, &mut lanes[..V::LANES]);
                for (index, value) in lanes[..V::LANES.min(columns - column)].iter().enumerate() {
                    let place = place + (column + index) * width;
                    // SAFETY: the caller's promise.
                    unsafe { self.data.slice(place..place + 1)[0] = *value };
                }
            }
        }
    }
}

/// Rows of activations.
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a, T> {
    pub data: &'a [T],
    pub arrangement: Arrangement,
}

impl<'a, T> Activations<'a, T> {
    pub fn new(data: &'a [T], arrangement: Arrangement) -> Activations<'a, T> {
        assert!(data.len() >= arrangement.operands(), "too few activations");
        Activations { data, arrangement }
    }

    /// How many there are.
    pub fn rows(&self) -> usize {
        self.arrangement.count()
    }

    /// Elements between rows, which are not tiles.
    pub fn stride(&self) -> usize {
        match self.arrangement {
            Arrangement::Rows { stride, .. } => stride,
            Arrangement::Tiles(_) | Arrangement::Batches { .. } => {
                unreachable!("handled by products of their own")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::instructions::{Supported, VectorJob};

    /// Stores rows that count up, over NaN; what lies at the places of `arrangement` then.
    struct Store(Arrangement);

    impl VectorJob for Store {
        type Output = Vec<f32>;

        fn run<V: Vectors>(self, v: V) -> Vec<f32> {
            let Store(arrangement) = self;
            let mut data = vec![f32::NAN; arrangement.operands()];
            let activations = ActivationsMut::new(&mut data, arrangement);
            for row in 0..arrangement.count() {
                for column in (0..arrangement.columns()).step_by(V::LANES) {
                    let values: [f32; MAX_LANES] =
                        std::array::from_fn(|lane| (1000 * row + column + lane) as f32);
                    // SAFETY: one thread.
                    unsafe { activations.store(v, v.load_slice(&values), row, column) };
                }
            }
            data
        }
    }

    fn expected(row: usize, column: usize, columns: usize) -> f32 {
        if column < columns { (1000 * row + column) as f32 } else { 0.0 }
    }

    #[test]
    fn rows_end_in_zeros() {
        for columns in [1, 15, 16, 17, 32, 33, 70] {
            let arrangement = Arrangement::rows(3, columns);
            let data = Supported::best().dispatch(Store(arrangement));
            for (at, value) in data.iter().enumerate() {
                let (row, column) = (at / row_stride(columns), at % row_stride(columns));
                assert_eq!(*value, expected(row, column, columns), "row {row}, column {column}");
            }
        }
    }

    #[test]
    fn tiles_end_in_zeros() {
        for (rows, columns) in [(1, 1), (3, 31), (16, 32), (17, 33), (64, 70), (65, 15), (100, 64)]
        {
            let packing = Packing::of_tiles(rows, columns);
            let data = Supported::best().dispatch(Store(Arrangement::Tiles(packing)));
            assert_eq!(data.len(), Arrangement::tile_operands(rows, columns));
            for row in 0..rows {
                for column in 0..packing.padded_columns() {
                    let got = data[packing.place(row, column)];
                    assert_eq!(got, expected(row, column, columns), "row {row}, column {column}");
                }
            }
        }
    }
}
