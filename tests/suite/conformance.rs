//! Every conformance case on every backend.

use std::collections::BTreeMap;

use siluette::conformance::{Case, Oracle, Purpose, Status, cases, cases_for};
use siluette::{Backend, Device};

use crate::support::open;

#[test]
fn case_names_are_unique() {
    let mut seen = BTreeMap::new();
    for case in cases() {
        let purpose = case.purpose == Purpose::Bench;
        let id = (case.op, case.name.clone(), case.dtype.clone(), purpose);
        assert!(seen.insert(id, ()).is_none(), "{} {} {} twice", case.op, case.dtype, case.name);
    }
}

#[test]
fn cpu() {
    run_all(Backend::Cpu);
}

#[test]
fn wgpu() {
    run_all(Backend::Wgpu);
}

#[test]
fn cuda() {
    run_all(Backend::Cuda);
}

fn run_all(backend: Backend) {
    let Some(device) = open(backend) else { return };
    let cases = cases_for(Purpose::Conformance);
    let results: Vec<_> = cases.iter().map(|case| (case, check(&device, case))).collect();
    let failures: Vec<String> = results
        .iter()
        .filter_map(|(case, status)| match status {
            Status::Pass => None,
            Status::Fail(reason) => {
                Some(format!("{} {} {}: {reason}", case.op, case.dtype, case.name))
            }
            Status::Unsupported(reason) => {
                println!("UNSUPPORTED: {} {} {}: {reason}", case.op, case.dtype, case.name);
                None
            }
        })
        .collect();
    let passed = results.iter().filter(|(_, status)| *status == Status::Pass).count();
    println!("{backend} ({}): {passed} of {} cases pass", device.name(), results.len());
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 0, "no case ran");
}

fn check(device: &Device, case: &Case) -> Status {
    Oracle::new(case)
        .unwrap_or_else(|error| panic!("{} {}: {error}", case.op, case.name))
        .check(device)
        .status
}
