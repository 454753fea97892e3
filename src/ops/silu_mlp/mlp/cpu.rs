//! The MLPs on the CPU.

use super::config::{MlpConfig, MlpTensors};
use super::reference;
use crate::backend::cpu::{Cpu, Workspace};
use crate::error::Error;
use crate::tensor::{TensorMut, TensorRef};

pub(crate) fn mlp(
    _cpu: &Cpu,
    op: &MlpConfig,
    args: MlpTensors<TensorRef<'_>, TensorMut<'_>>,
    _workspace: &mut Workspace,
) -> Result<(), Error> {
    reference::mlp(op, args)
}
