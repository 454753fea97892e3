//! What operations cost that read and write everything once.

use crate::arguments::Arguments;
use crate::layout::Layout;
use crate::operation::Cost;

/// The bytes of all tensors, each read or written once.
pub(crate) fn traffic(args: impl Arguments<Layout, Layout>) -> Cost {
    let bytes = |layout: Layout| (layout.elements() * layout.dtype().size()) as u64;
    let mut cost = Cost::default();
    let Cost { bytes_read, bytes_written, .. } = &mut cost;
    args.visit(|_, input| *bytes_read += bytes(input), |_, output| *bytes_written += bytes(output));
    cost
}
