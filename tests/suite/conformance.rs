//! Every conformance case on every backend.

use std::collections::BTreeMap;

use siluette::conformance::{Case, Oracle, Purpose, Status, cases, cases_for};
use siluette::{Backend, Cpu, Device, InstructionSet};

use crate::support::{is_required, open};

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
    let cpus = InstructionSet::available()
        .map(|set| Device::Cpu(Cpu::new().with_instruction_set(set).unwrap()))
        .collect();
    run_all(Backend::Cpu, cpus);
}

#[test]
fn wgpu() {
    run_all(Backend::Wgpu, open(Backend::Wgpu).into_iter().collect());
}

#[test]
fn cuda() {
    run_all(Backend::Cuda, open(Backend::Cuda).into_iter().collect());
}

/// Every case on every one of a backend's devices.
fn run_all(backend: Backend, devices: Vec<Device>) {
    if devices.is_empty() {
        return;
    }
    let step = cases_step();
    let cases: Vec<Case> = cases_for(Purpose::Conformance).into_iter().step_by(step).collect();
    if step > 1 {
        println!("SILUETTE_CASES={step}: one case in {step}");
    }
    let oracles: Vec<Oracle> = cases.iter().map(oracle).collect();
    for device in devices {
        run_on(backend, &device, &cases, &oracles);
    }
}

fn run_on(backend: Backend, device: &Device, cases: &[Case], oracles: &[Oracle]) {
    let results: Vec<_> = cases
        .iter()
        .zip(oracles)
        .map(|(case, oracle)| (case, oracle.check(device).status))
        .collect();
    let failures: Vec<String> = results
        .iter()
        .filter_map(|(case, status)| match status {
            Status::Pass => None,
            Status::Fail(reason) => {
                Some(format!("{} {} {}: {reason}", case.op, case.dtype, case.name))
            }
            Status::Unsupported(reason) => {
                let line =
                    format!("UNSUPPORTED: {} {} {}: {reason}", case.op, case.dtype, case.name);
                println!("{line}");
                // No case needs more than what the devices of the gate have.
                is_required(backend.name()).then_some(line)
            }
        })
        .collect();
    let passed = results.iter().filter(|(_, status)| *status == Status::Pass).count();
    println!("{backend} ({}): {passed} of {} cases pass", device.name(), results.len());
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 0, "no case ran");
}

/// The environment variable `SILUETTE_CASES=N` leaves one case in N, for devices that are checked at a hundred times
/// the cost. The list repeats after 2, 4, 5 or 10 cases; an odd N that 5 does not divide meets them all.
pub fn cases_step() -> usize {
    let text = std::env::var("SILUETTE_CASES").unwrap_or_else(|_| "1".to_owned());
    text.parse().ok().filter(|&step| step > 0).unwrap_or_else(|| panic!("SILUETTE_CASES={text}"))
}

fn oracle(case: &Case) -> Oracle {
    Oracle::new(case).unwrap_or_else(|error| panic!("{} {}: {error}", case.op, case.name))
}
