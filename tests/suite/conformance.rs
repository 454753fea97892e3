//! Every conformance case on every backend.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use siluette::conformance::{Case, Oracle, Purpose, Status, cases, cases_for};
use siluette::{Backend, Cpu, Device, InstructionSet};

use crate::support::{is_required, open};

/// The cases and what is expected of them, for the tests of all backends.
static ORACLES: LazyLock<Vec<(Case, Oracle)>> = LazyLock::new(|| {
    let cases = Selection::of_environment().select(cases_for(Purpose::Conformance));
    let oracle = |case: &Case| {
        Oracle::new(case).unwrap_or_else(|error| panic!("{} {}: {error}", case.op, case.name))
    };
    cases
        .map(|case| {
            let oracle = oracle(&case);
            (case, oracle)
        })
        .collect()
});

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
    for set in InstructionSet::available() {
        let device = Device::Cpu(Cpu::new().with_instruction_set(set).unwrap());
        run_on(Backend::Cpu, &[device]);
    }
}

/// Every case of the operations that take packed weights.
#[test]
fn cpu_with_packed_weights() {
    let blocks = ["gated_mlp", "silu_mlp", "pruned_linear", "pruned_gated_mlp", "masked_gated_mlp"];
    let operations = [&blocks[..], &["exit_head", "exit_head_states"]].concat();
    for set in InstructionSet::available() {
        let device = Device::Cpu(Cpu::new().with_instruction_set(set).unwrap());
        let mut passed = BTreeMap::new();
        for (case, oracle) in ORACLES.iter().filter(|(case, _)| operations.contains(&case.op)) {
            let status = oracle.check_packed(&device).status;
            assert_eq!(status, Status::Pass, "{set} {} {} {}", case.op, case.dtype, case.name);
            *passed.entry(case.op).or_insert(0) += 1;
        }
        println!("{set}: {passed:?} cases pass");
        assert_eq!(passed.len(), operations.len(), "an operation had no case");
    }
}

/// Two devices, each in a thread of its own: most of the time goes into compiling pipelines, which a driver in
/// software does in the thread that asks.
#[test]
fn wgpu() {
    let devices: Vec<Device> = (0..2).filter_map(|_| open(Backend::Wgpu)).collect();
    run_on(Backend::Wgpu, &devices);
}

#[test]
fn cuda() {
    let devices: Vec<Device> = open(Backend::Cuda).into_iter().collect();
    run_on(Backend::Cuda, &devices);
}

/// Every case on one of the devices, which are alike.
fn run_on(backend: Backend, devices: &[Device]) {
    let Some(device) = devices.first() else { return };
    let results = check(devices);
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
    println!("{backend} ({}): {passed} of {} cases pass", device.name(), ORACLES.len());
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(results.len(), ORACLES.len(), "cases were left out");
    assert!(passed > 0, "no case ran");
}

/// What becomes of each case. An operation is left to one device, whose pipelines its cases share; who is done takes
/// the next.
fn check(devices: &[Device]) -> Vec<(&'static Case, Status)> {
    let operations: Vec<_> = ORACLES.chunk_by(|(a, _), (b, _)| a.op == b.op).collect();
    let next = AtomicUsize::new(0);
    let check_on = |device: &Device| {
        let taken = std::iter::from_fn(|| operations.get(next.fetch_add(1, Ordering::Relaxed)));
        let cases = taken.flat_map(|operation| operation.iter());
        cases.map(|(case, oracle)| (case, oracle.check(device).status)).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            devices.iter().map(|device| scope.spawn(|| check_on(device))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no check panics")).collect()
    })
}

/// What the environment variable `SILUETTE_CASES=K/N` leaves of a list: the K-th of every N. For devices that are
/// checked at a hundred times the cost. The list of cases repeats after 2, 4, 5 or 10 of them; an odd N that 5 does not
/// divide meets all their kinds.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    first: usize,
    step: usize,
}

impl Selection {
    pub fn of_environment() -> Self {
        let text = std::env::var("SILUETTE_CASES").unwrap_or_else(|_| "1/1".to_owned());
        Self::parse(&text).unwrap_or_else(|| panic!("SILUETTE_CASES={text} is not K/N, K of 1..=N"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, step) = text.split_once('/')?;
        let (number, step): (usize, usize) = (number.parse().ok()?, step.parse().ok()?);
        (1..=step).contains(&number).then(|| Self { first: number - 1, step })
    }

    /// Never nothing of something: a list of fewer than K starts anew.
    pub fn select<T>(self, all: Vec<T>) -> impl Iterator<Item = T> {
        let first = self.first % all.len().max(1);
        all.into_iter().skip(first).step_by(self.step)
    }
}

#[test]
fn selections_leave_one_of_each_so_many() {
    let select = |text, count| {
        Selection::parse(text).unwrap().select((0..count).collect()).collect::<Vec<i32>>()
    };
    assert_eq!(select("1/1", 3), [0, 1, 2]);
    assert_eq!(select("2/3", 9), [1, 4, 7]);
    assert_eq!(select("3/3", 2), [0]);
    assert!(select("1/2", 0).is_empty());
    for wrong in ["", "3", "0/3", "4/3", "1/0", "1/x"] {
        assert!(Selection::parse(wrong).is_none(), "{wrong}");
    }
}
