//! Kernels that the device at hand would not get: those of GPUs on a software device, those for few buffers, for rows off
//! 16-byte words and for devices without subgroups.

use siluette::Device;
use siluette::backend::wgpu::{Reduction, WgpuDevice, WgpuDispatch};
use siluette::conformance::{Oracle, Purpose, Status, cases_for};

use crate::wgpu_plans::context;

const HEADS: &[&str] = &["exit_head", "exit_head_states", "merge_exit_states"];
const MLPS: &[&str] = &["gated_mlp", "silu_mlp", "pruned_gated_mlp", "pruned_linear"];
const GRUS: &[&str] = &["bigru", "selective_feature_attention"];

/// Every `step`-th case of some operations.
fn assert_pass(choose: impl Fn(&mut WgpuDispatch), operations: &[&str], step: usize) {
    let Some(context) = context() else { return };
    let mut dispatch = WgpuDispatch::default();
    choose(&mut dispatch);
    let device = Device::Wgpu(WgpuDevice::new(context.with_dispatch(dispatch)));
    let cases = cases_for(Purpose::Conformance);
    let cases = cases.iter().filter(|case| operations.contains(&case.op)).step_by(step);
    let mut count = 0;
    for case in cases {
        let status = Oracle::new(case).unwrap().check(&device).status;
        let id = format!("{} {} {}", case.op, case.dtype, case.name);
        assert!(matches!(status, Status::Pass), "{id}: {status:?}");
        count += 1;
    }
    assert!(count > 10, "{count} cases");
}

#[test]
fn kernels_of_gpus_are_right_on_any_device() {
    assert_pass(|dispatch| dispatch.as_gpu = true, GRUS, 1);
    assert_pass(|dispatch| dispatch.as_gpu = true, HEADS, 29);
    assert_pass(|dispatch| dispatch.as_gpu = true, MLPS, 17);
}

#[test]
fn heads_on_few_buffers_are_right() {
    assert_pass(|dispatch| dispatch.few_buffers = true, HEADS, 29);
}

#[test]
fn heads_that_read_by_element_are_right() {
    let by_element = |dispatch: &mut WgpuDispatch| {
        dispatch.as_gpu = true;
        dispatch.scalar_loads = true;
    };
    assert_pass(by_element, HEADS, 29);
}

#[test]
fn kernels_without_subgroups_are_right() {
    let without = |dispatch: &mut WgpuDispatch| {
        dispatch.as_gpu = true;
        dispatch.reduction = Some(Reduction::Workgroup);
    };
    assert_pass(without, MLPS, 17);
}
