//! Which shader runs the recurrence: a function of its hidden size and the device alone.

use crate::backend::wgpu::registry::gru_recurrence;
use crate::backend::wgpu::{Shader, WgpuCapabilities};

/// Where the recurrent weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weights {
    /// With their invocations, so many fours of each row.
    Slice { fours: u32 },
    /// In their tensors, read at each step.
    Storage,
}

/// The shader's variant and constants. Neither depends on the batch or on the number of steps: a row's bits must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recurrence {
    pub weights: Weights,
    pub threads: u32,
    /// Invocations that share a unit.
    pub parts: u32,
    /// Floats of a state, zeros behind it included.
    pub state: u32,
}

impl Recurrence {
    pub fn of(hidden: usize, capabilities: &WgpuCapabilities) -> Recurrence {
        const STORAGE_PARTS: u32 = 4;
        // What WebGPU promises; more would only wait for each other at barriers.
        const MOST_THREADS: u32 = 256;
        let most = capabilities.invocations.min(MOST_THREADS);
        // Validation keeps three gates in 31 bits.
        let hidden = hidden as u32;
        for fours in [4, 16] {
            let parts = hidden.div_ceil(4 * fours);
            let threads = hidden.saturating_mul(parts);
            if threads <= most {
                let weights = Weights::Slice { fours };
                return Recurrence { weights, threads, parts, state: parts * fours * 4 };
            }
        }
        Recurrence {
            weights: Weights::Storage,
            threads: most / STORAGE_PARTS * STORAGE_PARTS,
            parts: STORAGE_PARTS,
            state: hidden.next_multiple_of(4),
        }
    }

    /// `reads_workspace` says that the initial states lie there.
    pub fn shader(&self, reads_workspace: bool) -> &'static Shader {
        match (self.weights, reads_workspace) {
            (Weights::Slice { fours: 4 }, false) => &gru_recurrence::SLICE4_READ,
            (Weights::Slice { fours: 4 }, true) => &gru_recurrence::SLICE4_READ_WRITE,
            (Weights::Slice { .. }, false) => &gru_recurrence::SLICE16_READ,
            (Weights::Slice { .. }, true) => &gru_recurrence::SLICE16_READ_WRITE,
            (Weights::Storage, false) => &gru_recurrence::STORAGE_READ,
            (Weights::Storage, true) => &gru_recurrence::STORAGE_READ_WRITE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(invocations: u32) -> WgpuCapabilities {
        WgpuCapabilities {
            subgroups: false,
            cpu: false,
            workgroup_bytes: 16 << 10,
            invocations,
            workgroups_per_dimension: 65_535,
            storage_buffers: 8,
            storage_binding_bytes: 128 << 20,
            storage_offset_alignment: 256,
            uniform_offset_alignment: 256,
        }
    }

    #[test]
    fn weights_stay_with_their_invocations_while_these_suffice() {
        for (hidden, weights, threads, parts, state) in [
            (1, Weights::Slice { fours: 4 }, 1, 1, 16),
            (16, Weights::Slice { fours: 4 }, 16, 1, 16),
            (17, Weights::Slice { fours: 4 }, 34, 2, 32),
            (50, Weights::Slice { fours: 4 }, 200, 4, 64),
            (64, Weights::Slice { fours: 4 }, 256, 4, 64),
            (65, Weights::Slice { fours: 16 }, 130, 2, 128),
            (128, Weights::Slice { fours: 16 }, 256, 2, 128),
            (129, Weights::Storage, 256, 4, 132),
            (1000, Weights::Storage, 256, 4, 1000),
        ] {
            let expected = Recurrence { weights, threads, parts, state };
            assert_eq!(Recurrence::of(hidden, &capabilities(256)), expected, "{hidden}");
            assert_eq!(Recurrence::of(hidden, &capabilities(1024)), expected, "{hidden}");
        }
        let few = Recurrence::of(50, &capabilities(128));
        assert_eq!((few.weights, few.threads), (Weights::Slice { fours: 16 }, 50));
        assert_eq!(Recurrence::of(100, &capabilities(128)).weights, Weights::Storage);
    }

    #[test]
    fn states_fit_the_workgroup_memory_that_webgpu_promises() {
        for hidden in [1, 50, 64, 128, 129, 1000, 1535, 1536] {
            let recurrence = Recurrence::of(hidden, &capabilities(256));
            let bytes = 2 * recurrence.state * 4 + recurrence.threads * 16 + 4;
            let fits = bytes <= 16 << 10;
            assert_eq!(fits, hidden < 1535, "{hidden}: {bytes}");
        }
    }
}
