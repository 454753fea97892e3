//! Which shader runs the recurrence: a function of its hidden size and the device alone.

use crate::backend::wgpu::registry::{gru_input, gru_recurrence};
use crate::backend::wgpu::{Shader, WgpuCapabilities};

/// How the input's product is cut; its sums are the same in any way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Fours of tokens, and of rows of the weight, of an invocation.
    fours: u32,
}

impl Tile {
    pub fn of(capabilities: &WgpuCapabilities) -> Tile {
        // A software device reads workgroup memory lane by lane: more products for a read are worth half the time.
        Tile { fours: if capabilities.cpu { 2 } else { 1 } }
    }

    /// Tiles that cover so many tokens, and so many rows of both directions.
    pub fn count(self, tokens: usize, rows: usize) -> [usize; 2] {
        let gru_input::Constants { threads_m, threads_n, .. } = gru_input::Constants::default();
        let [threads_m, threads_n] = [threads_m, threads_n].map(|n| (n * self.fours) as usize);
        [tokens.div_ceil(4 * threads_m), rows.div_ceil(2 * threads_n)]
    }

    /// `reads_workspace` says that x lies there.
    pub fn shader(self, reads_workspace: bool) -> &'static Shader {
        match (self.fours, reads_workspace) {
            (1, false) => &gru_input::READ_1,
            (1, true) => &gru_input::READ_WRITE_1,
            (_, false) => &gru_input::READ_2,
            (_, true) => &gru_input::READ_WRITE_2,
        }
    }
}

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
    /// Of the batch, that a workgroup steps through side by side.
    pub rows: u32,
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
        if capabilities.cpu {
            return Recurrence::on_software(hidden, most, capabilities.workgroup_bytes);
        }
        for fours in [4, 16] {
            let parts = hidden.div_ceil(4 * fours);
            let threads = units(hidden).saturating_mul(parts);
            if threads <= most {
                let weights = Weights::Slice { fours };
                return Recurrence { weights, threads, parts, rows: 1, state: parts * fours * 4 };
            }
        }
        Recurrence {
            weights: Weights::Storage,
            threads: most / STORAGE_PARTS * STORAGE_PARTS,
            parts: STORAGE_PARTS,
            rows: 1,
            state: hidden.next_multiple_of(4),
        }
    }

    /// A barrier of a software device switches between invocations one by one: there, an invocation does all of a unit,
    /// and a step takes one barrier. A weight is read lane by lane, so it serves several rows where their states fit.
    fn on_software(hidden: u32, most: u32, bytes: u32) -> Recurrence {
        const FOURS: u32 = 16;
        const FEW: u32 = 32;
        let threads = units(hidden);
        if threads <= 4 * FOURS && threads <= most {
            let weights = Weights::Slice { fours: FOURS };
            return Recurrence { weights, threads, parts: 1, rows: 1, state: 4 * FOURS };
        }
        let weights = Weights::Storage;
        let (threads, state) = (FEW.min(most), hidden.next_multiple_of(4));
        let of = |rows| Recurrence { weights, threads, parts: 1, rows, state };
        [4, 2]
            .map(of)
            .into_iter()
            .find(|one| one.workgroup_bytes() <= u64::from(bytes))
            .unwrap_or(of(1))
    }

    fn workgroup_bytes(&self) -> u64 {
        (self.shader(false).workgroup_bytes)(&self.constants().values())
    }

    pub fn constants(&self) -> gru_recurrence::Constants {
        gru_recurrence::Constants {
            threads: self.threads,
            parts: self.parts,
            rows: self.rows,
            state: self.state,
            ..gru_recurrence::Constants::default()
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

/// Units of a pass over all of them: few values, so that few pipelines serve all sizes. Most devices run so many invocations
/// side by side anyway.
fn units(hidden: u32) -> u32 {
    hidden.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(invocations: u32) -> WgpuCapabilities {
        WgpuCapabilities {
            subgroups: false,
            matrices: None,
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
            (1, Weights::Slice { fours: 4 }, 8, 1, 16),
            (16, Weights::Slice { fours: 4 }, 16, 1, 16),
            (17, Weights::Slice { fours: 4 }, 48, 2, 32),
            (50, Weights::Slice { fours: 4 }, 224, 4, 64),
            (64, Weights::Slice { fours: 4 }, 256, 4, 64),
            (65, Weights::Slice { fours: 16 }, 144, 2, 128),
            (128, Weights::Slice { fours: 16 }, 256, 2, 128),
            (129, Weights::Storage, 256, 4, 132),
            (1000, Weights::Storage, 256, 4, 1000),
        ] {
            let expected = Recurrence { weights, threads, parts, rows: 1, state };
            assert_eq!(Recurrence::of(hidden, &capabilities(256)), expected, "{hidden}");
            assert_eq!(Recurrence::of(hidden, &capabilities(1024)), expected, "{hidden}");
        }
        let few = Recurrence::of(50, &capabilities(128));
        assert_eq!((few.weights, few.threads), (Weights::Slice { fours: 16 }, 56));
        assert_eq!(Recurrence::of(100, &capabilities(128)).weights, Weights::Storage);
    }

    #[test]
    fn software_devices_have_one_barrier_a_step_and_few_reads() {
        let device = WgpuCapabilities { cpu: true, ..capabilities(1024) };
        let of = |hidden| {
            let Recurrence { weights, threads, parts, rows, state } =
                Recurrence::of(hidden, &device);
            assert_eq!(parts, 1);
            (weights, threads, rows, state)
        };
        assert_eq!(of(1), (Weights::Slice { fours: 16 }, 8, 1, 64));
        assert_eq!(of(64), (Weights::Slice { fours: 16 }, 64, 1, 64));
        assert_eq!(of(65), (Weights::Storage, 32, 4, 68));
        assert_eq!(of(444), (Weights::Storage, 32, 4, 444));
        assert_eq!(of(445), (Weights::Storage, 32, 2, 448));
        assert_eq!(of(1000), (Weights::Storage, 32, 1, 1000));
        assert_eq!(Tile::of(&device).count(65, 33), [2, 2]);
        assert_eq!(Tile::of(&capabilities(256)).count(65, 33), [3, 3]);
    }

    #[test]
    fn states_fit_the_workgroup_memory_that_webgpu_promises() {
        for hidden in [1, 50, 64, 128, 129, 1000, 1532, 1533] {
            let bytes = Recurrence::of(hidden, &capabilities(256)).workgroup_bytes();
            assert_eq!(bytes <= 16 << 10, hidden < 1533, "{hidden}: {bytes}");
        }
    }
}
