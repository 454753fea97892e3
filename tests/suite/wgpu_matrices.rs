//! Products of many rows by cooperative matrices, on a device that has them. Most have not, Debian's software Vulkan among
//! them: `.ci/check-cooperative-matrices.sh` brings a later one.

use siluette::backend::wgpu::{CooperativeMatrices, MlpKernel, WgpuDevice, WgpuDispatch};
use siluette::conformance::{Case, Oracle, Purpose, Status, cases_for};
use siluette::{Device, Error, Wgpu};

use crate::conformance::Selection;
use crate::support::is_required;

const MLPS: &[&str] = &[
    "gated_mlp",
    "silu_mlp",
    "pruned_gated_mlp",
    "pruned_linear",
    "masked_gated_mlp",
    "sparse_gated_mlp",
];

/// A context with matrices, or `None`, said aloud, if this machine has none and none is required.
fn context() -> Option<Wgpu> {
    match Wgpu::open_with_matrices() {
        Ok(context) => Some(context),
        Err(error @ Error::Unavailable { .. }) if !is_required("cooperative_matrices") => {
            println!("NOT RUN: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The cases of the MLPs in f16 that `wanted` leaves.
fn cases(wanted: impl Fn(&Case) -> bool) -> Vec<Case> {
    let all = Selection::of_environment().select(cases_for(Purpose::Conformance));
    let all = all.filter(|case| MLPS.contains(&case.op) && case.dtype == "f16");
    all.filter(|case| wanted(case)).collect()
}

/// Runs cases, and gives the kernels that they took.
fn kernels_of(context: Wgpu, dispatch: WgpuDispatch, cases: &[Case]) -> Vec<&'static str> {
    let device = WgpuDevice::new(context.with_dispatch(dispatch));
    let device = Device::Wgpu(device);
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| match Oracle::new(case).unwrap().check(&device).status {
            Status::Pass => None,
            status => Some(format!("{} {}: {status:?}", case.op, case.name)),
        })
        .collect();
    let (count, all) = (failures.len(), cases.len());
    assert!(failures.is_empty(), "{count} of {all} cases fail:\n{}", failures.join("\n"));
    match &device {
        Device::Wgpu(device) => device.context().compiled_kernels().into_iter().collect(),
        _ => unreachable!("it was made here"),
    }
}

/// Every case by matrices, whatever its rows.
fn assert_all_pass(scalar_loads: bool) {
    let Some(context) = context() else { return };
    let CooperativeMatrices { size, subgroup, .. } = context.capabilities().matrices.unwrap();
    let mut dispatch = WgpuDispatch::default();
    dispatch.mlp = Some(MlpKernel::Matrices);
    dispatch.scalar_loads = scalar_loads;
    let cases = cases(|_| true);
    assert!(cases.len() > 10, "{} cases", cases.len());
    let kernels = kernels_of(context, dispatch, &cases);
    println!("{} cases by {size} by {size} matrices, subgroups of {subgroup}", cases.len());
    let loads: &[&str] = if scalar_loads { &["scalar"] } else { &["vector", "scalar"] };
    for load in loads {
        for half in ["gate_up", "down"] {
            let kernel = format!("{half}_matrices.{load}.{size}_{subgroup}");
            assert!(kernels.contains(&kernel.as_str()), "{kernel} is none of {kernels:?}");
        }
    }
    assert!(!kernels.iter().any(|kernel| kernel.contains("_tile.")), "{kernels:?}");
}

#[test]
fn mlps_that_read_vectors_are_right() {
    assert_all_pass(false);
}

#[test]
fn mlps_that_read_by_element_are_right() {
    assert_all_pass(true);
}

#[test]
fn many_rows_take_matrices_unasked() {
    let Some(context) = context() else { return };
    let rows = |case: &Case| {
        let x = case.tensors.iter().find(|tensor| tensor.name == "x").unwrap();
        x.shape[0]
    };
    let cases = cases(|case| case.op == "gated_mlp" && (1..=100).contains(&rows(case)));
    let kernels = kernels_of(context, WgpuDispatch::default(), &cases);
    for kernel in ["gate_up_gemv", "down_gemv", "gate_up_matrices", "down_matrices"] {
        assert!(kernels.iter().any(|name| name.starts_with(kernel)), "{kernel}: {kernels:?}");
    }
    assert!(!kernels.iter().any(|kernel| kernel.contains("_tile.")), "{kernels:?}");
}

/// Bounds checks are wgpu's own: what it would clamp shows.
#[test]
fn matrices_stay_within_bounds() {
    let Some(context) = context() else { return };
    let mut dispatch = WgpuDispatch::default();
    dispatch.mlp = Some(MlpKernel::Matrices);
    dispatch.bounds_checks = true;
    let cases: Vec<Case> = cases(|_| true).into_iter().step_by(17).collect();
    kernels_of(context, dispatch, &cases);
}

#[test]
fn a_device_without_the_features_is_refused() {
    let Some(with) = context() else { return };
    let instance = siluette::wgpu::Instance::new(
        siluette::wgpu::InstanceDescriptor::new_without_display_handle_from_env(),
    );
    let wanted = with.device().adapter_info().name;
    let all = pollster::block_on(instance.enumerate_adapters(siluette::wgpu::Backends::all()));
    let adapter = all.into_iter().find(|adapter| adapter.get_info().name == wanted).unwrap();
    assert_eq!(CooperativeMatrices::of(&adapter), with.capabilities().matrices);
    let without = Wgpu::open().unwrap();
    assert_eq!(without.capabilities().matrices, None);
    match without.with_matrices(&adapter) {
        Err(Error::Unavailable { remedy, .. }) => assert!(remedy.contains("FEATURES"), "{remedy}"),
        other => panic!("{other:?}"),
    }
}
