use siluette::conformance::{Oracle, Purpose, Status, cases_for};
use siluette::{Backend, Device};
use std::time::Instant;
fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let device = Device::open(Backend::Wgpu).unwrap();
    println!("{}", device.name());
    let Device::Wgpu(inner) = &device else { panic!() };
    println!("{:?}", inner.context().capabilities());
    let (mut pass, mut fail) = (0, 0);
    let start = Instant::now();
    for case in cases_for(Purpose::Conformance) {
        let id = format!("{} {} {}", case.op, case.dtype, case.name);
        if !id.contains(&filter) {
            continue;
        }
        let t = Instant::now();
        let oracle = Oracle::new(&case).unwrap();
        let reference = t.elapsed();
        let t = Instant::now();
        let outcome = oracle.check(&device);
        let took = t.elapsed();
        if outcome.status == Status::Pass {
            pass += 1
        } else {
            fail += 1;
            println!("{id}: {:?}", outcome.status);
        }
        if took.as_millis() > 1000 {
            println!(
                "   slow {id}: {took:?} reference {reference:?} pipelines {}",
                inner.context().compiled_pipelines()
            );
        }
    }
    println!(
        "{pass} pass {fail} fail {:?} pipelines {}",
        start.elapsed(),
        inner.context().compiled_pipelines()
    );
}
