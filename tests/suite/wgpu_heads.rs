//! Heads through wgpu: how many dispatches they take, and that those of devices with few buffers are right, too.

use siluette::backend::wgpu::{StorageBuffers, WgpuDevice, WgpuDispatch};
use siluette::conformance::{Case, Oracle, Purpose, Status, cases_for};
use siluette::{
    DType, Device, ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs, Layout, Wgpu,
    WgpuTensor, WgpuWorkspace,
};

use crate::wgpu_plans::{context, storage};

const ROWS: usize = 9;
const HIDDEN: usize = 72;
const VOCABULARY: usize = 300;
const TOP_K: usize = 3;
const TILES: usize = 3;

fn with_buffers(buffers: StorageBuffers) -> Option<Wgpu> {
    let mut dispatch = WgpuDispatch::default();
    dispatch.buffers = Some(buffers);
    Some(context()?.with_dispatch(dispatch))
}

/// A device that binds all inputs of a head at once, or `None`, said aloud.
fn all_buffers() -> Option<Wgpu> {
    let context = with_buffers(StorageBuffers::All)?;
    let buffers = context.capabilities().storage_buffers;
    if buffers < 11 {
        println!("NOT RUN: the device binds {buffers} storage buffers");
    }
    (buffers >= 11).then_some(context)
}

/// A buffer for each argument, zeros all of them.
struct Buffers {
    buffers: Vec<siluette::wgpu::Buffer>,
    next: std::cell::Cell<usize>,
}

impl Buffers {
    fn new(context: &Wgpu) -> Buffers {
        let buffers = (0..20).map(|_| storage(context, &vec![0; 1 << 16])).collect();
        Buffers { buffers, next: std::cell::Cell::new(0) }
    }

    fn tensor(&self, dtype: DType, shape: &[usize]) -> WgpuTensor<'_> {
        let buffer = &self.buffers[self.next.replace(self.next.get() + 1)];
        WgpuTensor::new(buffer, 0, Layout::contiguous(dtype, shape).unwrap())
    }

    fn inputs(&self) -> ExitHeadArgs<WgpuTensor<'_>, WgpuTensor<'_>> {
        let f16 = |shape: &[usize]| self.tensor(DType::F16, shape);
        let i32 = |shape: &[usize]| self.tensor(DType::I32, shape);
        ExitHeadArgs::new(f16(&[4, HIDDEN]), f16(&[VOCABULARY, HIDDEN]))
            .norm_weight(f16(&[HIDDEN]))
            .head_bias(f16(&[VOCABULARY]))
            .rows(i32(&[ROWS]))
            .positions(i32(&[ROWS]))
            .seeds(self.tensor(DType::U32, &[ROWS, 2]))
            .gather_tokens(i32(&[ROWS]))
            .sampled_token(i32(&[ROWS]))
            .gathered_logit(self.tensor(DType::F32, &[ROWS]))
    }

    fn everything(&self) -> ExitHeadArgs<WgpuTensor<'_>, WgpuTensor<'_>> {
        let f32 = |shape: &[usize]| self.tensor(DType::F32, shape);
        self.inputs()
            .token(self.tensor(DType::I32, &[ROWS]))
            .max_logit(f32(&[ROWS]))
            .second_logit(f32(&[ROWS]))
            .log_sum_exp(f32(&[ROWS]))
            .entropy(f32(&[ROWS]))
            .top_tokens(self.tensor(DType::I32, &[ROWS, TOP_K]))
            .top_logits(f32(&[ROWS, TOP_K]))
            .logits(f32(&[ROWS, VOCABULARY]))
    }
}

fn head() -> ExitHead {
    let op = ExitHead::new(HIDDEN, VOCABULARY, DType::F16).unwrap();
    op.with_norm(1e-5).unwrap().with_top_k(TOP_K).unwrap().with_sampling(0.7, 5).unwrap()
}

fn dispatches(context: &Wgpu, op: &ExitHead, all: bool) -> usize {
    let buffers = Buffers::new(context);
    let workspace = storage(context, &vec![0; 1 << 16]);
    let args = if all { buffers.everything() } else { buffers.inputs() };
    let workspace = WgpuWorkspace::whole(&workspace);
    context.plan_exit_head(op, args, workspace).unwrap().dispatches()
}

#[test]
fn a_head_is_a_pass_and_a_merge() {
    let Some(context) = all_buffers() else { return };
    assert_eq!(dispatches(&context, &head(), true), 2);
    assert_eq!(dispatches(&context, &head(), false), 2);
}

#[test]
fn a_head_on_few_buffers_takes_more() {
    let Some(context) = with_buffers(StorageBuffers::Promised) else { return };
    assert_eq!(dispatches(&context, &head(), false), 3, "rows are prepared");
    assert_eq!(dispatches(&context, &head(), true), 4, "and results merged six by six");
}

#[test]
fn states_that_share_a_buffer_with_an_input_are_still_taken() {
    let Some(context) = all_buffers() else { return };
    let buffers = Buffers::new(&context);
    let workspace = storage(&context, &vec![0; 1 << 16]);
    let args = buffers.inputs();
    let layout = |dtype, shape: &[usize]| Layout::contiguous(dtype, shape).unwrap();
    let tokens = buffers.tensor(DType::I32, &[TILES, ROWS, 2 + TOP_K]);
    let op = ExitHeadStates::new(HIDDEN, VOCABULARY, DType::F16).unwrap();
    let op = op.with_top_k(TOP_K).unwrap();
    let shape = [TILES, ROWS, 6 + TOP_K];
    let plan = |buffer: &siluette::wgpu::Buffer| {
        let values = WgpuTensor::new(buffer, 1 << 15, layout(DType::F32, &shape));
        let states = ExitHeadStatesArgs::new(args.hidden, args.head_weight, values, tokens)
            .rows(args.rows.unwrap());
        let workspace = WgpuWorkspace::whole(&workspace);
        context.plan_exit_head_states(&op, states, workspace).unwrap().dispatches()
    };
    // The first buffer is hidden's.
    assert_eq!(plan(&buffers.buffers[0]), 2);
    assert_eq!(plan(&buffers.buffers[19]), 1);
}

fn assert_pass(context: Wgpu, wanted: impl Fn(&Case) -> bool) {
    let device = Device::Wgpu(WgpuDevice::new(context));
    let cases: Vec<Case> =
        cases_for(Purpose::Conformance).into_iter().filter(|case| wanted(case)).collect();
    assert!(cases.len() > 10, "{} cases", cases.len());
    for case in &cases {
        let id = format!("{} {} {}", case.op, case.dtype, case.name);
        match Oracle::new(case).unwrap().check(&device).status {
            Status::Pass => {}
            other => panic!("{id}: {other:?}"),
        }
    }
}

/// A case of every `step`, which meets every dtype and shape of the list.
fn assert_heads_pass(context: Wgpu, step: usize) {
    let count = std::cell::Cell::new(0);
    assert_pass(context, |case| {
        let is_head = ["exit_head", "exit_head_states", "merge_exit_states"].contains(&case.op);
        count.set(count.get() + usize::from(is_head));
        is_head && count.get().is_multiple_of(step)
    });
}

#[test]
fn heads_on_many_buffers_are_right() {
    let Some(context) = all_buffers() else { return };
    assert_heads_pass(context, 17);
}

#[test]
fn heads_on_few_buffers_are_right() {
    let Some(context) = with_buffers(StorageBuffers::Promised) else { return };
    assert_heads_pass(context, 29);
}

#[test]
fn heads_that_read_by_element_are_right() {
    let Some(context) = all_buffers() else { return };
    let mut dispatch = context.dispatch();
    dispatch.scalar_loads = true;
    assert_heads_pass(context.with_dispatch(dispatch), 29);
}
