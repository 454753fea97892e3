//! Heads through wgpu: how many dispatches they take.

use siluette::backend::wgpu::WgpuDispatch;
use siluette::{
    DType, ExitHead, ExitHeadArgs, ExitHeadStates, ExitHeadStatesArgs, Layout, Wgpu, WgpuTensor,
    WgpuWorkspace,
};

use crate::wgpu_plans::{context, storage};

const ROWS: usize = 9;
const HIDDEN: usize = 72;
const VOCABULARY: usize = 300;
const TOP_K: usize = 3;
const TILES: usize = 3;

/// A device that binds all inputs of a head at once, or `None`, said aloud.
fn all_buffers() -> Option<Wgpu> {
    let mut dispatch = WgpuDispatch::default();
    dispatch.as_gpu = true;
    let context = context()?.with_dispatch(dispatch);
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
    let Some(context) = context() else { return };
    let mut dispatch = WgpuDispatch::default();
    dispatch.few_buffers = true;
    let context = context.with_dispatch(dispatch);
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
