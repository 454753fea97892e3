//! The CPU backend.

use std::sync::Arc;

/// The CPU: a thread pool to run on.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    pool: Option<Arc<rayon::ThreadPool>>,
}

/// Scratch memory that grows to what an operation needs and is then reused.
#[derive(Debug, Default)]
pub struct Workspace {
    bytes: Vec<u128>,
}

impl Cpu {
    /// Runs on rayon's global thread pool.
    pub fn new() -> Cpu {
        Cpu::default()
    }

    /// Runs on a thread pool of the caller's.
    pub fn with_pool(pool: Arc<rayon::ThreadPool>) -> Cpu {
        Cpu { pool: Some(pool) }
    }

    /// Instruction sets and threads in use.
    pub fn name(&self) -> String {
        "cpu".to_owned()
    }
}
