//! Which features a norm before a selection is over.

/// The features that the mean square of a norm is over, where only some features are selected.
///
/// With `d` features, of which `k` are selected:
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NormScope {
    /// The mean over all `d`, then select: the released code of DISP-LLM, and what pruned checkpoints expect.
    #[default]
    Full,
    /// The mean over the `k` selected ones: the figure in DISP-LLM's paper.
    Selected,
    /// The sum over the `k` selected ones, divided by `d`: SliceGPT (arXiv 2401.15024).
    SelectedSumOverD,
}

impl NormScope {
    pub(crate) const CHOICES: [(&'static str, NormScope); 3] = [
        ("full", NormScope::Full),
        ("selected", NormScope::Selected),
        ("selected_sum_over_d", NormScope::SelectedSumOverD),
    ];
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl NormScope {
    /// Its number in `kernels/prune_gather/norm_scope.wgsl` and `norm_scope.cuh`.
    pub(crate) fn code(self) -> u32 {
        match self {
            NormScope::Full => 0,
            NormScope::Selected => 1,
            NormScope::SelectedSumOverD => 2,
        }
    }
}
